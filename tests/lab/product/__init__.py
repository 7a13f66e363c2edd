"""The product on real hosts: its own command line, real SSH, and a stand-in for vLLM where vLLM is not the point."""
