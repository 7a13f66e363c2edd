"""The command `plan`: show what `run` will do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    TEMPLATES,
    command,
    options,
    plan_options,
    request_of,
)
from flagscale_deploy.cli.recipes import settled

if TYPE_CHECKING:
    from flagscale_deploy.api.planning import Planned
    from flagscale_deploy.api.request import PlanOptions, Request
    from flagscale_deploy.config.spec import ServeSpec
    from flagscale_deploy.output.console import Console

_YAML = (".yaml", ".yml")


@click.command(cls=Command, section="look", example="flagscale-deploy plan --offline -i hosts.yaml -c qwen.yaml")
@click.option("--offline", is_flag=True, help="Contact no host. GPU counts come from the inventory.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the scripts to DIR/<host>/. A name that ends in .yaml: write the deployment there, as a serve YAML.",
)
@click.option("--scripts", is_flag=True, help="Print the scripts as well.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, JSON)
@command
def plan(console: Console, *, as_json: bool, output: Path | None, scripts: bool, **words: Any) -> int:
    """Show exactly what `run` will do, and how that differs from what runs; write the scripts that it will send."""
    from flagscale_deploy.config.written import written
    from flagscale_deploy.deploy.run_folder import write_scripts
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.support.paths import make_directory, write_file
    from flagscale_deploy.support.planted import refuse_planted_output
    from flagscale_deploy.support.units import counted

    request = settled(console, request_of(console, words), offline=words["offline"])
    warn(console, request.serve)
    folder = None if output is None or output.suffix in _YAML else output
    if folder is not None:
        refuse_planted_output(folder)
        make_directory(folder)  # before any host is contacted
    elif output is not None:
        if os.path.lexists(output):
            raise InputError.at(str(output), "exists already", "remove it, or name another file")
        refuse_planted_output(output)
        write_file(output, written(request.serve), "a serve YAML")
        console.note(f"serve YAML written to {output}")
    planned = planned_by(console, request, plan_options(words), offline=words["offline"])
    files = write_scripts(folder, planned.plan.scripts) if folder is not None else []
    show(console, planned, scripts=scripts, as_json=as_json)
    if folder is not None:
        console.note(f"{counted(len(files), 'script')} written to {folder}")
    return 0


def warn(console: Console, spec: ServeSpec) -> None:
    """Print what may be wrong in a specification."""
    from flagscale_deploy.plan.validate import shown_secrets, unknown_flags

    for warning in (*spec.warnings, *unknown_flags(spec), *shown_secrets(spec)):
        first, *rest = warning.lines
        console.note(f"! {first}", *rest)


def planned_by(console: Console, request: Request, options: PlanOptions, *, offline: bool = False) -> Planned:
    """Return what a request would do, and how that differs from what runs."""
    from flagscale_deploy import api

    with console.progress("plan") as progress:
        return api.plan_change(request, options, offline=offline, redactor=console.redactor, say=progress)


def show(console: Console, planned: Planned, *, scripts: bool = False, as_json: bool = False) -> None:
    """Show what `plan` shows."""
    from flagscale_deploy.output.plan import show_plan
    from flagscale_deploy.plan.json_schema import plan_json

    made, difference = planned.plan, planned.difference
    if as_json:
        console.json({**plan_json(made), "difference": difference and difference.json()})
    else:
        show_plan(console, made, scripts, difference)
