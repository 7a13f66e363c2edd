"""The command `logs`: show, follow, collect or diagnose logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import SIZE, TEXT, TIME, When, Whole
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console

LONGEST_GREP = 200
"""Characters: hosts look for the text in each line."""


@click.command(cls=Command, section="look", example="flagscale-deploy logs -i hosts.yaml --name qwen -f")
@click.option("-f", "--follow", is_flag=True, help="Print new lines of all hosts as they come.")
@click.option(
    "--tail",
    type=Whole(0, 10_000_000),
    metavar="N",
    help="Only the last N lines of each file. Default: 50; with -o or --grep all.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["engine", "script", "ray", "ray-worker"]),
    help="Only these logs (may be given often). Default: engine and script; with -o all.",
)
@click.option(
    "--grep",
    multiple=True,
    type=TEXT,
    metavar="TEXT",
    help="Only lines that contain TEXT, in upper or lower case; no pattern (may be given often: one of them).",
)
@click.option("--all-runs", is_flag=True, help="Also logs of earlier runs. Default: of the last one; with -o all.")
@click.option("--all", "every", is_flag=True, help="Include Ray's own logs.")
@click.option(
    "-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Collect all logs into DIR/<host>/."
)
@click.option(
    "--since",
    type=TIME,
    metavar="WHEN",
    help="Only files written to since then: 30m, 2h, 1d (ago), or 2026-11-24T10:00.",
)
@click.option(
    "--max-size", type=SIZE, metavar="SIZE", help="With -o: of a longer file keep the beginning and the end (20M)."
)
@click.option(
    "--max-total",
    type=SIZE,
    default="64G",
    show_default=True,
    metavar="SIZE",
    help="With -o: take at most this much from a host.",
)
@click.option("--diagnose", is_flag=True, help="Find the first cause in the logs of all hosts, and say what to do.")
@click.option(
    "--from",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True),
    help="With --diagnose: read logs on this disk (of -o, of a run's folder, a file); contact no host.",
)
@options(*DEPLOYMENT, JSON)
@command
def logs(
    console: Console,
    *,
    as_json: bool,
    output: Path | None,
    every: bool,
    since: When | None,
    max_size: int | None,
    max_total: int,
    **words: Any,
) -> int:
    """Show, follow, collect or diagnose engine, script and Ray logs of all hosts."""
    from flagscale_deploy import api
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.logs import KINDS, FileSelection, LineSelection
    from flagscale_deploy.output import logs as view

    diagnose, folder = words.pop("diagnose"), words.pop("folder")
    if folder is not None and (not diagnose or output is not None):
        raise InputError.at("--from", "goes with --diagnose, and not with -o", f"logs --diagnose --from {folder}")
    if diagnose and words["follow"]:
        raise InputError.at("--diagnose", "does not go with -f", "leave one of them out")
    if folder is not None:
        return view.show_diagnosed(console, api.diagnose_offline(folder), {}, folder, as_json)
    if max_size is not None and output is None and not diagnose:
        raise InputError.at(
            "--max-size", "is for logs that are collected", "give -o, or --tail for lines that are shown"
        )
    if words["all_runs"] and (output is not None or diagnose):
        raise InputError.at("--all-runs", "is for logs that are shown or followed", "-o collects those of all runs")
    grep: tuple[str, ...] = words["grep"]
    if grep and (output is not None or diagnose):
        raise InputError.at("--grep", "is for logs that are shown or followed", "search what -o has collected")
    if not all(0 < len(text) <= LONGEST_GREP for text in grep):
        raise InputError.at("--grep", f"a text has 1 to {LONGEST_GREP} characters", "search for a part of it")
    when = since or When()
    files = FileSelection(when.since, when.within, max_size, max_total)
    request = request_of(console, words)

    def tell(host: str, text: str) -> None:
        console.note(f"{host}: {text}")

    if diagnose:
        diagnosis, collected = api.diagnose(request, output, selection=files, tell=tell)
        return view.show_diagnosed(console, diagnosis, collected, output, as_json)
    if output is not None:
        return view.show_collected(console, api.collect(request, output, selection=files, tell=tell), as_json)
    kinds = list(words.pop("kinds")) or (list(KINDS) if every else ["engine", "script"])
    tail = (None if grep else 50) if words["tail"] is None else words["tail"]
    show = view.line_printer(console, [host.name for host in request.inventory.hosts], as_json)
    lines = LineSelection(tail, kinds, when.since, when.within, not words["all_runs"], grep)
    shown = api.follow(request, show, lines, follow=words["follow"], tell=tell)
    return view.show_unread(console, shown)
