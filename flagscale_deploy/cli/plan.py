"""The command `plan`: show what `run` will do."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


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
    from flagscale_deploy.plan.validate import unknown_flags
    from flagscale_deploy.support.paths import make_directory

    request = request_of(console, words)
    for warning in (*request.serve.warnings, *unknown_flags(request.serve)):
        first, *rest = warning.lines
        console.note(f"! {first}", *rest)
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
