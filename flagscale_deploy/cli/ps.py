"""The command `ps`: everything that runs on the hosts of an inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import HOSTS, JSON, command, options, request_of
from flagscale_deploy.cli.watching import INTERVAL, WATCH, repeat

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy ps -i hosts.yaml")
@click.option("-a", "--all", "every", is_flag=True, help="Also deployments that were stopped.")
@options(WATCH, INTERVAL, *HOSTS, JSON)
@command
def ps(console: Console, *, as_json: bool, every: bool, watch: bool, interval: float, **words: Any) -> int:
    """List the deployments on the hosts, other users' as far as may be seen, and who holds each GPU."""
    from flagscale_deploy import api
    from flagscale_deploy.output import ps as view

    request = request_of(console, words)

    def show() -> int:
        overview = api.deployments(request, gpus=True)
        if as_json:
            console.json(overview.json())
        else:
            (view.show_watch if watch else view.show_ps)(console, overview, every=every)
        return 3 if overview.unknown else 0

    return repeat(show, watch=watch, interval=interval)
