"""Find why something failed: known error texts, and the earliest root cause in the logs of all hosts."""
