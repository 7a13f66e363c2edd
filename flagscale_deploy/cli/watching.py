"""Options of commands that repeat what they show."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from flagscale_deploy.cli.option_types import Number

WATCH = click.option("-w", "--watch", is_flag=True, help="Repeat every few seconds until interrupted.")
INTERVAL = click.option(
    "--interval",
    type=Number(0.5, 86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two rounds of --watch.",
)


def repeat(show: Callable[[], int], *, watch: bool, interval: float) -> int:
    """Show a round, and with `watch` others until interrupted; return the exit status of the only one."""
    while True:
        status = show()
        if not watch:
            return status
        time.sleep(interval)
