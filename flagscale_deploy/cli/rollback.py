"""The command `rollback`: go back to what a deployment was."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.named_run import RUN, run_and_overrides
from flagscale_deploy.cli.options import (
    DEPLOYMENT_ALONE,
    FORCE,
    JSON,
    LOCK,
    SKIP,
    TEMPLATES,
    command,
    options,
    request_of,
)
from flagscale_deploy.cli.update import CHANGE, carry_out

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="deploy", example="flagscale-deploy rollback -i hosts.yaml --name qwen")
@RUN
@options(*CHANGE, *DEPLOYMENT_ALONE, TEMPLATES, FORCE, SKIP, LOCK, JSON)
@command
def rollback(console: Console, *, as_json: bool, given: tuple[str, ...], **words: Any) -> int:
    """Go back to an earlier run or update, as an update; a change that is not over is put back.

    A RUN is named by its id, the beginning of it, or its number in `history`. Default: the one before.
    """
    from flagscale_deploy import api

    run, overrides = run_and_overrides(given)
    words["overrides"] = overrides
    request = request_of(console, words, acts=True, plans=False)
    return carry_out(console, partial(api.rollback, to=run), request, words, "rollback", as_json)
