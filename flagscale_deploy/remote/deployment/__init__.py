"""What a deployment has on this host: its record, lock, scripts, processes and leftovers."""
