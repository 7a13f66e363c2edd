"""See `openai`."""
