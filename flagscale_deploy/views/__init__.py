"""What commands print: values in, tables and lines out through a `Console`. One room a command, or a pair of them."""
