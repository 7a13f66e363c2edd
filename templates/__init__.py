"""Jinja templates of the scripts that run on hosts; importable so that wheels and editable installs find them."""
