"""The command `cleanup`: stop, and remove what was left on the hosts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import DEPLOYMENT, FORCE_PART, JSON, LOCK, command, options, request_of
from flagscale_deploy.cli.stop import end

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="deploy", example="flagscale-deploy cleanup -i hosts.yaml --name qwen")
@options(*DEPLOYMENT, FORCE_PART, LOCK, JSON)
@command
def cleanup(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Stop, then remove what is left on the hosts: state, logs, Ray's temporary directories."""
    from flagscale_deploy import api

    act = partial(api.cleanup, force=words.pop("force"))
    return end(console, act, request_of(console, words, acts=True), "cleanup", lock_timeout, as_json)
