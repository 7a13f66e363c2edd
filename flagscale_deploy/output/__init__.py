"""What people and CI read: values in, tables and lines out through a `Console`. One file a command."""
