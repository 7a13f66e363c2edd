"""The command `run`: bring a deployment up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    LOCK,
    SKIP,
    TEMPLATES,
    WAIT,
    command,
    options,
    plan_options,
    request_of,
)
from flagscale_deploy.cli.recipes import settled
from flagscale_deploy.cli.stop import end

if TYPE_CHECKING:
    from flagscale_deploy.config.spec import ServeSpec
    from flagscale_deploy.output.console import Console

_ELSEWHERE = {"dryrun": "plan", "query": "status", "test": "smoke", "stop": "stop"}
"""Actions of FlagScale's run.py that are commands of their own here."""


@click.command(cls=Command, section="deploy", example="flagscale-deploy run -i hosts.yaml -c qwen.yaml")
@click.option("--keep-on-failure", is_flag=True, help="If the run fails, leave running what was started.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, SKIP, WAIT, LOCK, JSON)
@command
def run(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Check the hosts, plan, start the deployment, and wait until it has answered a completion."""
    from flagscale_deploy import api
    from flagscale_deploy.output import run as view

    request = settled(console, request_of(console, words, acts=True))
    if request.serve.action == "stop":
        return end(console, partial(api.stop, force=words["force"]), request, "stop", lock_timeout, as_json)
    refuse_action(console, request.serve)
    with console.progress(f"run {request.serve.name}") as progress:
        result = api.run(
            request,
            plan_options(words),
            keep_on_failure=words["keep_on_failure"],
            lock_wait=lock_timeout,
            redactor=console.redactor,
            say=progress,
        )
    if as_json:
        console.json(view.run_json(result))
    else:
        view.show_run(console, result)
    return 0


def refuse_action(console: Console, spec: ServeSpec) -> None:
    """Raise InputError for an action of FlagScale's that another command does; `auto_tune` serves without tuning."""
    from flagscale_deploy.errors import InputError

    if spec.action in _ELSEWHERE:
        remedy = f"use flagscale-deploy {_ELSEWHERE[spec.action]} with the same options"
        raise InputError.at(spec.where("action"), f"{spec.action!r} is a command of its own", remedy)
    if spec.action == "auto_tune":
        console.note("action: auto_tune is not done here; this serves with the values as they stand in the file")
