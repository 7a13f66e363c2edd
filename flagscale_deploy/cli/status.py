"""The command `status`: what a deployment's hosts and servers really do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import Number
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.api import Listing
    from flagscale_deploy.deploy.status import Status
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy status -i hosts.yaml --name qwen --watch")
@click.option("-w", "--watch", is_flag=True, help="Repeat every few seconds until interrupted.")
@click.option(
    "--interval",
    type=Number(0.5, 86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two rounds of --watch.",
)
@options(*DEPLOYMENT, JSON)
@command
def status(console: Console, *, as_json: bool, watch: bool, interval: float, **words: Any) -> int:
    """Show the real state of hosts, Ray nodes, GPUs, instances and endpoints; without a name, list deployments."""
    import time

    from flagscale_deploy import api
    from flagscale_deploy.deploy.token_looks import TokenLooks
    from flagscale_deploy.output import status as view

    request = request_of(console, words)
    tokens = TokenLooks() if watch else None
    while True:
        if request.name is None:
            report: Status | Listing = api.deployments(request)
        else:
            report = api.status(request, tokens=tokens)
        if as_json:
            console.json(report.json())
        elif isinstance(report, api.Listing):
            view.show_listing(console, report)
        elif watch:
            view.show_watch(console, report)
        else:
            view.show_status(console, report)
            if report.unknown_name is not None:
                console.note(*report.unknown_name.lines)
        if not watch:
            return report.exit_code
        time.sleep(interval)
