"""The command `unlock`: release a deployment's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="hosts", example="flagscale-deploy unlock -i hosts.yaml --name qwen")
@click.option("--force", is_flag=True, help="Release the lock anyway. The other command stops at its current step.")
@options(*DEPLOYMENT, JSON)
@command
def unlock(console: Console, *, as_json: bool, force: bool, **words: Any) -> int:
    """Show who holds the deployment's lock; release it if the command that took it no longer runs."""
    from flagscale_deploy import api
    from flagscale_deploy.output import unlock as view

    done = api.unlock(request_of(console, words, acts=True), force=force)
    if as_json:
        console.json(view.unlock_json(done))
    else:
        view.show_unlock(console, done)
    return 0
