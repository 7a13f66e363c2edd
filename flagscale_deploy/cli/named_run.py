"""The words of commands that may name a RUN before KEY=VALUE words."""

from __future__ import annotations

import click

RUN = click.argument("given", nargs=-1, metavar="[RUN] [KEY=VALUE]...")


def run_and_overrides(given: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the RUN that is named, None without one, and the overrides. Raises InputError where two are named."""
    from flagscale_deploy.errors import InputError

    runs = [word for word in given if "=" not in word]
    if runs[1:]:
        raise InputError.at(" ".join(runs), "more than one run is named", "give one RUN, and KEY=VALUE words")
    return (runs[0] if runs else None), tuple(word for word in given if "=" in word)
