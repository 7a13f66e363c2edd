"""Serve configurations of every dialect become one `ServeSpec`. Reads files and nothing else."""
