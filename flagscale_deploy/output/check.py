"""Show the results of checks: group by group, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from flagscale_deploy.api import CheckReport
from flagscale_deploy.checks.registry import CHECKS
from flagscale_deploy.checks.types import State, Verdict
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.hosts import describe_facts
from flagscale_deploy.support.units import counted

if TYPE_CHECKING:
    from flagscale_deploy.api.cases import Case

WORST_FIRST: tuple[State, ...] = ("failed", "warning", "passed", "skipped")
MARKS = {"failed": ("✗", "red"), "warning": ("!", "yellow"), "passed": ("✓", "green"), "skipped": ("·", "dim")}
LONGEST = max(len(check.name) for check in CHECKS)
GROUPS = {check.name: check.group for check in CHECKS}


def show_check(console: Console, report: CheckReport) -> None:
    """Show `check`: the facts of every host, one row per verdict, and a summary."""
    rows = [
        (
            name,
            console.state("failed" if observation.error else "ok"),
            describe_facts(observation.facts)
            if observation.facts
            else str(observation.error and observation.error.problem),
        )
        for name, observation in report.observations.items()
    ]
    console.table(counted(len(rows), "host"), ("HOST", "STATE", "FOUND"), rows)
    widest = max((len(verdict.host) for verdict in report.verdicts), default=0)
    for group, verdicts in _grouped(report.verdicts):
        console.print()
        console.table(group, ("", "CHECK", "HOST", "FOUND"), [_row(verdict, widest) for verdict in verdicts])
    console.print("", _summary(report))


def _grouped(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Return the groups, those with the worst verdicts first; likewise the verdicts in each."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(GROUPS[verdict.check], []).append(verdict)
    for members in groups.values():
        members.sort(key=_badness)
    return sorted(groups.items(), key=lambda group: _badness(group[1][0]))


def _badness(verdict: Verdict) -> int:
    return WORST_FIRST.index(verdict.state)


def _row(verdict: Verdict, widest: int) -> Sequence[object]:
    """Return a table row with the same columns in every group."""
    mark, style = MARKS[verdict.state]
    lines = [verdict.found]
    if verdict.state in ("failed", "warning"):
        lines += [f"expected: {verdict.expected}"] if verdict.expected else []
        lines += [f"→ {verdict.remedy}"] if verdict.remedy else []
    return Text(mark, style=style), f"{verdict.check:{LONGEST}}", f"{verdict.host:{widest}}", tuple(lines)


def _summary(report: CheckReport) -> str:
    failed, warned = len(report.failed), sum(verdict.state == "warning" for verdict in report.verdicts)
    warnings = f", {counted(warned, 'warning')}" if warned else ""
    silent = sum(observation.facts is None for observation in report.observations.values())
    if failed or silent:
        problems = counted(failed, "problem") if failed else f"{counted(silent, 'host')} did not answer"
        nobody = ": no host answered" if silent and silent == len(report.observations) else ""
        return f"{problems}{warnings}{nobody}"
    return f"no problem found{warnings}" + (": this deployment can be run" if report.plan else "")


def check_json(report: CheckReport) -> dict[str, object]:
    """Return `check --json`: every verdict, and the facts of every host."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "checks": [{"group": GROUPS[verdict.check], **asdict(verdict)} for verdict in report.verdicts],
        "hosts": {
            name: {"error": observation.error.problem}
            if observation.error
            else {"facts": asdict(observation.facts) if observation.facts else None}
            for name, observation in report.observations.items()
        },
    }


def cases(report: CheckReport) -> list[Case]:
    """Return a JUnit test case for every verdict; a warning counts as passed, with the warning as its message."""
    from flagscale_deploy.api.cases import Case  # imported late: only JUnit files need it

    return [
        Case(
            verdict.check,
            verdict.host,
            "passed" if verdict.state == "warning" else verdict.state,
            message=f"warning: {verdict.found} → {verdict.remedy}" if verdict.state == "warning" else verdict.found,
            lines=tuple(
                filter(None, (verdict.found, verdict.expected and f"expected: {verdict.expected}", verdict.remedy))
            ),
        )
        for verdict in report.verdicts
    ]
