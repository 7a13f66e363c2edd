"""The command `history`: what became of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.named_run import RUN, run_and_overrides
from flagscale_deploy.cli.option_types import Whole
from flagscale_deploy.cli.options import DEPLOYMENT_ALONE, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy history -i hosts.yaml --name qwen")
@RUN
@click.option(
    "--tail", type=Whole(0, 1_000_000), default=50, show_default=True, metavar="N", help="Only the last N changes."
)
@options(*DEPLOYMENT_ALONE, JSON)
@command
def history(console: Console, *, as_json: bool, given: tuple[str, ...], tail: int, **words: Any) -> int:
    """Show runs, updates, stops and restarts: when, by whom, how long, and what changed; of one RUN its configuration.

    A RUN is a run or an update, named by its id, the beginning of it, or its number.
    """
    from flagscale_deploy import api
    from flagscale_deploy.output import history as view

    run, overrides = run_and_overrides(given)
    shown = api.history(request_of(console, {**words, "overrides": overrides}), run)
    shown = shown.last(tail)
    if as_json:
        console.json(shown.json())
    else:
        view.show_history(console, shown, whole=run is not None)
    return shown.exit_code
