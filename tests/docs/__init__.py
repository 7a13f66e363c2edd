"""The README as tests read it, and the tests that do what it says."""
