"""Write the generated parts of all pages anew: `python -m docs.generate`."""

from __future__ import annotations

import click

from docs.generate import pages, renewed

for page in pages():
    text = page.read_text(encoding="utf-8")
    if renewed(text) != text:
        page.write_text(renewed(text), encoding="utf-8")
        click.echo(f"written: {page}")
