"""Copy a tree from host to host."""
