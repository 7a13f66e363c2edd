"""A model's files to many hosts: what is sent where (`schedule`), and who does it (`act`)."""
