"""Render the scripts that run on hosts from the Jinja templates."""
