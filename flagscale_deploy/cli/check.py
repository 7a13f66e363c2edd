"""The command `check`: look at every host and report every problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    JUNIT,
    SKIP,
    TEMPLATES,
    command,
    options,
    plan_options,
    request_of,
)
from flagscale_deploy.cli.recipes import settled

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example="flagscale-deploy check -i hosts.yaml -c qwen.yaml --network")
@click.option("--network", is_flag=True, help="Also measure bandwidth and latency between hosts.")
@options(*DEPLOYMENT, TEMPLATES, FORCE, SKIP, JUNIT, JSON)
@command
def check(console: Console, *, as_json: bool, junit: Path | None, **words: Any) -> int:
    """Check every host and report all problems at once; start nothing."""
    from flagscale_deploy import api
    from flagscale_deploy.output import check as view

    if junit is not None:
        from flagscale_deploy.output.junit import JUNIT, write_junit
        from flagscale_deploy.support.paths import refuse_unwritable

        refuse_unwritable(junit, JUNIT)  # before any host is contacted
    request = settled(console, request_of(console, words))
    with console.progress("check") as progress:
        report = api.check(request, plan_options(words), network=words["network"], say=progress)
    if junit is not None:  # before what may not be taken
        write_junit("check", view.cases(report), junit, console.redactor.redact, view.properties(report, request.name))
    if as_json:
        console.json(view.check_json(report))
    else:
        view.show_check(console, report)
    return report.exit_code
