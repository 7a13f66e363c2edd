"""What can be known before it costs ten minutes: each check is a pure function of what was seen."""
