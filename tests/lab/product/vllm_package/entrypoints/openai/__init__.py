"""See `cli_args`."""
