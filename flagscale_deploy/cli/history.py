"""The command `history`: what became of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import Whole
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, OVERRIDES, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy history -i hosts.yaml --name qwen")
@click.argument("given", nargs=-1, metavar="[RUN] [KEY=VALUE]...")
@click.option(
    "--tail", type=Whole(0, 1_000_000), default=50, show_default=True, metavar="N", help="Only the last N changes."
)
@options(*[option for option in DEPLOYMENT if option is not OVERRIDES], JSON)
@command
def history(console: Console, *, as_json: bool, given: tuple[str, ...], tail: int, **words: Any) -> int:
    """Show runs, updates, stops and restarts: when, by whom, how long, and what changed; of one RUN its configuration.

    A RUN is a run or an update, named by its id, the beginning of it, or its number.
    """
    from flagscale_deploy import api
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.output import history as view

    runs = [word for word in given if "=" not in word]
    if runs[1:]:
        raise InputError.at(" ".join(runs), "more than one run is named", "give one RUN, and KEY=VALUE words")
    run = runs[0] if runs else None
    overrides = tuple(word for word in given if "=" in word)
    shown = api.history(request_of(console, {**words, "overrides": overrides}), run)
    shown = shown.last(tail)
    if as_json:
        console.json(shown.json())
    else:
        view.show_history(console, shown, whole=run is not None)
    return shown.exit_code
