"""Ways to a host: SSH or none at all, one at a time (`base`, `ssh`, `local`), or many at once (`fleet`)."""
