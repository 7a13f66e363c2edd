"""Why something failed: error texts that are known, and the earliest root cause among the logs of all hosts."""
