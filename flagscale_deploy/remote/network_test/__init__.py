"""Connections between the hosts of one check."""
