"""Send a model's files to many hosts: `schedule` decides what is sent where, `push` does it."""
