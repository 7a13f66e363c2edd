"""Jinja templates of the scripts that run on hosts; a package, so that wheels and editable installs find them."""
