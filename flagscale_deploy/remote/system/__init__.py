"""What the operating system of a host tells: processes, sockets, network, memory, GPUs."""
