"""`run`, and what shows beforehand whether it will work: `plan`, `check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.ending import end
from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    JUNIT,
    LOCK,
    SKIP,
    TEMPLATES,
    command,
    options,
    plan_options,
    request_of,
)

if TYPE_CHECKING:
    from flagscale_deploy.config.spec import ServeSpec
    from flagscale_deploy.output.console import Console

_ELSEWHERE = {"dryrun": "flagscale-deploy plan", "query": "flagscale-deploy status", "test": "flagscale-deploy smoke"}
"""Actions of FlagScale's run.py that are commands of their own here."""


@click.command(cls=Command, section="deploy", example="flagscale-deploy run -i hosts.yaml -c qwen.yaml")
@click.option("--keep-on-failure", is_flag=True, help="If the run fails, leave running what was started.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, SKIP, LOCK, JSON)
@command
def run(console: Console, *, as_json: bool, lock_timeout: float, **words: Any) -> int:
    """Check the hosts, plan, start the deployment, and wait until it has answered a completion."""
    from flagscale_deploy import api
    from flagscale_deploy.output import run as view

    request = request_of(console, words)
    if request.serve.action == "stop":
        return end(console, api.stop, request, "stop", lock_timeout, as_json)
    _refuse_action(console, request.serve)
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


def _refuse_action(console: Console, spec: ServeSpec) -> None:
    """Raise InputError for an action of FlagScale's that another command does; `auto_tune` serves without tuning."""
    from flagscale_deploy.errors import InputError

    if spec.action in _ELSEWHERE:
        remedy = f"use {_ELSEWHERE[spec.action]} with the same options"
        raise InputError.at(f"{spec.source}: action", f"{spec.action!r} is a command of its own", remedy)
    if spec.action == "auto_tune":
        console.note("action: auto_tune is not done here; this serves with the values as they stand in the file")


@click.command(cls=Command, section="look", example="flagscale-deploy plan --offline -i hosts.yaml -c qwen.yaml")
@click.option("--offline", is_flag=True, help="Contact no host. GPU counts come from the inventory.")
@click.option(
    "-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Write the scripts to DIR/<host>/."
)
@click.option("--scripts", is_flag=True, help="Print the scripts as well.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, JSON)
@command
def plan(console: Console, *, as_json: bool, output: Path | None, scripts: bool, **words: Any) -> int:
    """Show exactly what `run` will do; write the scripts that it will send."""
    from flagscale_deploy import api
    from flagscale_deploy.deploy.run_folder import write_scripts
    from flagscale_deploy.output import plan as view
    from flagscale_deploy.plan.json_schema import plan_json
    from flagscale_deploy.support.paths import make_directory

    request = request_of(console, words)
    if output is not None:
        make_directory(output)  # before any host is contacted
    with console.progress("plan") as progress:
        made = api.plan(request, plan_options(words), offline=words["offline"], say=progress)
    written = write_scripts(output, made.scripts) if output is not None else []
    if as_json:
        console.json(plan_json(made))
    else:
        view.show_plan(console, made, scripts)
    if output is not None:
        from flagscale_deploy.support.units import counted

        console.note(f"{counted(len(written), 'script')} written to {output}")
    return 0


@click.command(cls=Command, section="look", example="flagscale-deploy check -i hosts.yaml -c qwen.yaml --network")
@click.option("--network", is_flag=True, help="Also measure bandwidth and latency between hosts.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, SKIP, JUNIT, JSON)
@command
def check(console: Console, *, as_json: bool, junit: Path | None, **words: Any) -> int:
    """Check every host and report all problems at once; start nothing."""
    from flagscale_deploy import api
    from flagscale_deploy.output import check as view

    request = request_of(console, words)
    if junit is not None:
        from flagscale_deploy.output.junit import refuse_unwritable, write_junit

        refuse_unwritable(junit)  # before any host is contacted
    with console.progress("check") as progress:
        report = api.check(request, plan_options(words), network=words["network"], say=progress)
    if as_json:
        console.json(view.check_json(report))
    else:
        view.show_check(console, report)
    if junit is not None:
        write_junit(request.name or "check", view.cases(report), junit, console.redactor.redact)
    return report.exit_code
