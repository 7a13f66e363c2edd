"""A stand-in for the package `vllm` on the lab's hosts: as much of it as reads a command line, laid out as in 0.6."""
