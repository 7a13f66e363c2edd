"""What was seen of a host."""
