"""The demo, and the picture of it."""
