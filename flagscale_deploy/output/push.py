"""Show the result of a push for each host."""

from __future__ import annotations

from dataclasses import asdict

from rich.text import Text

from flagscale_deploy.output.console import Console
from flagscale_deploy.push.report import Differences, PushReport
from flagscale_deploy.support.units import counted, format_size

NAMED = 5
"""Paths of each kind that are shown for each host at most; `--json` has all."""


def show_push(console: Console, report: PushReport) -> None:
    """Show `push`: what each host received, or with `--check` how each differs."""
    for note in report.notes:
        console.note(f"· {note}")
    rows: list[tuple[str, Text, str | tuple[str, ...]]] = []
    for name, host in report.hosts.items():
        if report.check:
            rows.append((name, console.state("ok" if not host.before else "differs"), _differs(host.before)))
        else:
            received = f"{format_size(host.bytes)} received" if host.bytes else "up to date"
            rows.append((name, console.state("ok"), received))
    rows += [(name or report.source, console.state("failed"), error.problem) for name, error in report.failed.items()]
    what = f"{counted(report.files, 'file')}, {format_size(report.bytes)}: {report.source} → {report.dest}"
    console.table(what, ("HOST", "STATE", ""), rows)
    for error in report.failed.values():
        console.error(f"✗ {error.lines[0]}", *error.lines[1:])
    if not report.check and report.sent:
        console.print("", f"the source sent {format_size(report.sent)} in {report.elapsed:.1f} s")


def _differs(differences: Differences) -> tuple[str, ...]:
    parts = []
    for paths, what in (
        (differences.missing, "missing"),
        (differences.different, "different"),
        (differences.modes, "other mode"),
    ):
        if paths:
            more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
            parts.append(f"{what}: {', '.join(paths[:NAMED])}{more}")
    return tuple(parts)


def push_json(report: PushReport) -> dict[str, object]:
    """Return `push --json`."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "source": report.source,
        "dest": report.dest,
        "files": report.files,
        "bytes": report.bytes,
        "sent": report.sent,
        "elapsed": report.elapsed,
        "hosts": {name: {"bytes": host.bytes, **asdict(host.before)} for name, host in report.hosts.items()},
        "failed": {name or report.source: error.problem for name, error in report.failed.items()},
        "notes": report.notes,
    }
