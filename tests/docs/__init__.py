"""README and documentation as tests read them, and the tests that do what they say with hosts or an installation."""
