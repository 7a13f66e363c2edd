"""The command `stop`: end a deployment, and what other commands take down the same way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import DEPLOYMENT, FORCE_PART, JSON, LOCK, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.api.request import Request
    from flagscale_deploy.deploy.stop import StopReport
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="deploy", example="flagscale-deploy stop -i hosts.yaml --name qwen")
@options(*DEPLOYMENT, FORCE_PART, LOCK, JSON)
@command
def stop(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Stop everything that the deployment started, verify that it is gone, and keep its logs."""
    from flagscale_deploy import api

    act = partial(api.stop, force=words.pop("force"))
    return end(console, act, request_of(console, words, acts=True), "stop", lock_timeout, as_json)


def end(
    console: Console, act: Callable[..., StopReport], request: Request, title: str, lock_timeout: float, as_json: bool
) -> int:
    """Carry out `stop` or `cleanup`, show what became of each host, and return the exit status."""
    from flagscale_deploy.output import stop as view

    with console.progress(f"{title} {request.deployment}") as progress:
        report = act(request, lock_wait=lock_timeout, say=progress)
    if as_json:
        console.json(view.stop_json(report))
    else:
        view.show_stop(console, report)
    return report.exit_code
