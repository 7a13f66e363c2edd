"""Benchmarks: the time and resources of the tool, measured side by side with its peers in one run."""
