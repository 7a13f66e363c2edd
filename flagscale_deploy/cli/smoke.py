"""`smoke`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import MOST_TOKENS, TEXT, Whole
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    JUNIT,
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

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(
    cls=Command, section="deploy", example="flagscale-deploy smoke -i hosts.yaml -c qwen.yaml --junit smoke.xml"
)
@click.option(
    "--prompt",
    "prompts",
    type=TEXT,
    multiple=True,
    metavar="TEXT",
    help="Send this prompt (may be given often). Default: one question.",
)
@click.option(
    "--expect",
    "expectations",
    multiple=True,
    metavar="REGEX",
    help="Pattern that the answer to the prompt of the same position must match.",
)
@click.option(
    "--min-tokens",
    metavar="N",
    type=Whole(1, MOST_TOKENS),
    default=1,
    show_default=True,
    help="A shorter answer is a failure.",
)
@click.option(
    "--max-tokens",
    metavar="N",
    type=Whole(1, MOST_TOKENS),
    default=64,
    show_default=True,
    help="Longest answer, in tokens.",
)
@click.option(
    "--artifacts",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("smoke-artifacts"),
    show_default=True,
    help="Folder for answers, plan, scripts, events and logs.",
)
@options(*DEPLOYMENT, TEMPLATES, FORCE, SKIP, WAIT, LOCK, JUNIT, JSON)
@command
def smoke(console: Console, *, as_json: bool, junit: Path | None, artifacts: Path, **words: Any) -> int:
    """Test a deployment in CI: check, run, send prompts, stop, and verify that nothing is left.

    The deployment is always stopped at the end, also after a failure.
    """
    from flagscale_deploy import __version__
    from flagscale_deploy.api import smoke as smokes
    from flagscale_deploy.api.cases import Case
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.output import smoke as view
    from flagscale_deploy.output.junit import JUNIT, write_junit
    from flagscale_deploy.support.paths import refuse_unwritable

    def write(cases: Sequence[Case], properties: Mapping[str, str]) -> None:
        if junit is not None:
            write_junit("smoke", cases, junit, console.redactor.redact, properties)

    if junit is not None:
        refuse_unwritable(junit, JUNIT)  # before any host is contacted
    try:
        request = settled(console, request_of(console, words, acts=True))
    except InputError as error:
        cases = [
            Case("check", fault.where, "failed", message=f"{fault.problem} → {fault.remedy}") for fault in error.faults
        ]
        write(cases, {"flagscale-deploy": __version__})  # CI shows what the JUnit file says
        raise
    prompts = view.prompts(words["prompts"], words["expectations"], words["min_tokens"], words["max_tokens"])
    with console.progress(f"smoke {request.serve.name}") as progress:
        result = smokes.smoke(
            request,
            prompts,
            smokes.Kept(artifacts, console.redactor, lambda result: write(result.cases, result.properties)),
            plan_options(words),
            lock_wait=words["lock_timeout"],
            say=progress,
        )
    write(result.cases, result.properties)  # before what may not be taken
    if as_json:
        console.json(result.json())
    else:
        view.show_smoke(console, result)
    return result.exit_code
