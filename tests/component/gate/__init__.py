"""The gate as a process, before servers that are stand-ins."""
