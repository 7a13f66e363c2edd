"""Restart what has ended on this host; goes to hosts as files and runs there without an operator."""
