"""The command `update`: change a deployment that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli import complete
from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import DURATION, MOST_GROUPS, Whole
from flagscale_deploy.cli.options import (
    DEPLOYMENT,
    FORCE,
    JSON,
    LOCK,
    SKIP,
    TEMPLATES,
    command,
    options,
    plan_options,
    request_of,
)
from flagscale_deploy.cli.plan import planned_by, show, warn
from flagscale_deploy.cli.recipes import settled
from flagscale_deploy.cli.run import refuse_action

if TYPE_CHECKING:
    from flagscale_deploy.api import ChangeResult
    from flagscale_deploy.api.request import Request
    from flagscale_deploy.output.console import Console

MAX_UNAVAILABLE = click.option(
    "--max-unavailable",
    metavar="N",
    type=Whole(1, MOST_GROUPS),
    default=1,
    show_default=True,
    help="How many groups of a model may be down at the same time.",
)
SURGE = click.option(
    "--surge",
    metavar="N",
    type=Whole(0, MOST_GROUPS),
    default=0,
    show_default=True,
    help="How many new groups of a model to start, where GPUs are free, before old ones are stopped.",
)
WATCH_FOR = click.option(
    "--watch-for",
    metavar="DURATION",
    type=DURATION,
    default="10s",
    show_default=True,
    help="Watch the health of a new group this long before the next one is changed.",
)
ALLOW_DOWNTIME = click.option(
    "--allow-downtime",
    is_flag=True,
    help="Go on where requests will fail meanwhile, because a model has no other group.",
)
KEEP_ON_FAILURE = click.option(
    "--keep-on-failure", is_flag=True, help="If the change fails, leave what was changed, and do not put it back."
)
WITHOUT = click.option(
    "--without",
    metavar="PATTERN",
    shell_complete=complete.hosts_and_groups,
    help="Take these hosts out of the deployment: an Ansible host pattern.",
)
CHANGE = (MAX_UNAVAILABLE, SURGE, WATCH_FOR, ALLOW_DOWNTIME, KEEP_ON_FAILURE, WITHOUT)
"""How a deployment that runs is changed."""


@click.command(
    cls=Command,
    section="deploy",
    example="flagscale-deploy update -i hosts.yaml -c qwen.yaml deploy.models.vllm_model.num_replicas=3",
)
@click.option("--dry-run", is_flag=True, help="Only show what would change, as `plan` does.")
@click.option("--resume", is_flag=True, help="Finish a change whose operator went away; needs no -c.")
@options(*CHANGE, *DEPLOYMENT, TEMPLATES, FORCE, SKIP, LOCK, JSON)
@command
def update(console: Console, *, as_json: bool, dry_run: bool, resume: bool, **words: Any) -> int:
    """Change a deployment that runs, one group after the other, without losing a request.

    Only groups that differ are changed. If one does not become ready, what was changed is put back.
    """
    from flagscale_deploy import api
    from flagscale_deploy.errors import InputError

    if resume and dry_run:
        raise InputError.at("--dry-run", "does not go with --resume", "`status` shows a change that is not over")
    request = request_of(console, words, acts=True, plans=not resume)
    if resume:
        return carry_out(console, api.resume, request, words, "update", as_json)
    request = settled(console, request)
    refuse_action(console, request.serve)
    if dry_run:
        warn(console, request.serve)
        show(console, planned_by(console, request, plan_options(words)), as_json=as_json)
        return 0
    return carry_out(console, api.update, request, words, "update", as_json)


def carry_out(
    console: Console,
    act: Callable[..., ChangeResult],
    request: Request,
    words: Mapping[str, Any],
    title: str,
    as_json: bool,
) -> int:
    """Carry out a change, show its result, and return the exit status."""
    from flagscale_deploy.api import ChangeOptions
    from flagscale_deploy.output import update as view

    names = ("max_unavailable", "surge", "watch_for", "allow_downtime", "keep_on_failure")
    how = ChangeOptions(**{name: words[name] for name in names})
    with console.progress(f"{title} {request.deployment}") as progress:
        result = act(
            request,
            options=plan_options(words),
            how=how,
            lock_wait=words["lock_timeout"],
            redactor=console.redactor,
            say=progress,
        )
    if as_json:
        console.json(view.change_json(result))
    else:
        view.show_change(console, result)
    return 0
