"""Inventory files of three forms become one `Inventory`. Reads files and nothing else."""
