"""What a shell completes in place of a word: deployments, hosts and groups, checks. Nothing is contacted."""

from __future__ import annotations

import contextlib
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from flagscale_deploy.remote.system.files import open_regular
from flagscale_deploy.support.paths import DEPLOYMENT_NAME

MOST_FOLDERS = 1000
LARGEST_PLAN = 64 << 10
"""Bytes of a plan that are read; its deployment stands at its beginning."""
_DEPLOYMENT = re.compile(r'\s*\{(?:\s*"\w+"\s*:\s*(?:\d+|"[^"\\\n]*")\s*,)*\s*"deployment"\s*:\s*"([^"\\\n]*)"')
_HOST = re.compile(r"[\w.:-]+")


def deployments(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the deployments whose runs lie in `outputs/` of the working directory."""
    folders = islice(Path("outputs").glob("*/runs"), MOST_FOLDERS)
    names = sorted({_deployment_of(runs) for runs in folders})
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and DEPLOYMENT_NAME.fullmatch(name)]


def hosts_and_groups(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the hosts and groups of `-i` and `-c` before the word, or by default; also behind `,`, `!` and `&`."""
    from flagscale_deploy.api.request import Options, load_request
    from flagscale_deploy.cli.defaults import find_defaults
    from flagscale_deploy.errors import DeployError

    before, word = re.fullmatch(r"(.*[,:!&])?(.*)", incomplete, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    try:
        given = {option: ctx.params.get(option) for option in ("inventory", "config")}
        values: dict[str, Any] = given | find_defaults(given, os.environ)[0]
        inventory = load_request(Options(**values)).inventory
    except DeployError:
        return []
    kinds = {**dict.fromkeys(inventory.groups, "group"), **dict.fromkeys(inventory.names, "host")}
    return [
        CompletionItem(before + name, help=kind)
        for name, kind in kinds.items()
        if name.startswith(word) and _HOST.fullmatch(name)
    ]


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
    for plan in sorted(islice(runs.glob("*/plan.json"), MOST_FOLDERS), reverse=True):
        with contextlib.suppress(OSError), open_regular(str(plan)) as file:
            if match := _DEPLOYMENT.match(file.read(LARGEST_PLAN).decode(errors="replace")):
                return match[1]
    return runs.parent.name
