"""Log files of a deployment on this host, read, followed and packed."""
