"""What a shell completes in place of a word: deployments, hosts and groups, checks. Nothing is contacted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

LARGEST_PLAN = 64 << 20


def deployments(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the deployments whose runs lie in `outputs/` of the working directory."""
    names = sorted({_deployment_of(runs) for runs in Path("outputs").glob("*/runs")})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def hosts_and_groups(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the hosts and groups of the `-i` and `-c` before the word; also behind `,`, `!` and `&`."""
    from flagscale_deploy.api.request import Options, load_request
    from flagscale_deploy.errors import DeployError

    before, word = re.fullmatch(r"(.*[,:!&])?(.*)", incomplete, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    try:
        options = Options(inventory=ctx.params.get("inventory"), config=ctx.params.get("config"))
        inventory = load_request(options).inventory
    except DeployError:
        return []
    kinds = {**dict.fromkeys(inventory.groups, "group"), **dict.fromkeys(inventory.names, "host")}
    return [CompletionItem(before + name, help=kind) for name, kind in kinds.items() if name.startswith(word)]


def checks(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the checks that may be left out."""
    from flagscale_deploy.checks.registry import CHECKS

    return [
        CompletionItem(check.name, help=check.expected)
        for check in CHECKS
        if check.skippable and check.name.startswith(incomplete)
    ]


def _deployment_of(runs: Path) -> str:
    """Return the name in the newest plan of these runs, else that of their folder."""
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.support.input_files import read_text

    for plan in sorted(runs.glob("*/plan.json"), reverse=True):
        try:
            return str(json.loads(read_text(plan, LARGEST_PLAN))["deployment"])
        except (InputError, LookupError, RecursionError, TypeError, ValueError):
            continue
    return runs.parent.name
