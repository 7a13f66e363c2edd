"""The command `status`: what a deployment's hosts and servers really do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of
from flagscale_deploy.cli.watching import INTERVAL, WATCH, repeat

if TYPE_CHECKING:
    from flagscale_deploy.deploy.overview import Overview
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy status -i hosts.yaml --name qwen --watch")
@options(WATCH, INTERVAL, *DEPLOYMENT, JSON)
@command
def status(console: Console, *, as_json: bool, watch: bool, interval: float, **words: Any) -> int:
    """Show the real state of hosts, Ray nodes, GPUs, instances and endpoints; without a name, list deployments."""
    from flagscale_deploy import api
    from flagscale_deploy.deploy.status import Status
    from flagscale_deploy.deploy.token_looks import TokenLooks
    from flagscale_deploy.output import status as view

    request = request_of(console, words)
    tokens = TokenLooks() if watch else None

    def show() -> int:
        report: Status | Overview = (
            api.deployments(request) if request.name is None else api.status(request, tokens=tokens)
        )
        if as_json:
            console.json(report.json() if isinstance(report, Status) else report.statuses_json())
        elif not isinstance(report, Status):
            view.show_listing(console, report)
        elif watch:
            view.show_watch(console, report)
        else:
            view.show_status(console, report)
            if report.unknown_name is not None:
                console.note(*report.unknown_name.lines)
        return report.exit_code

    return repeat(show, watch=watch, interval=interval)
