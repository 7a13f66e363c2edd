"""What a check found: the worst first, a group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from flagscale_deploy.api import CheckReport
from flagscale_deploy.checks.model import State, Verdict
from flagscale_deploy.checks.registry import CHECKS
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.hosts import describe_facts
from flagscale_deploy.support.units import counted

if TYPE_CHECKING:
    from flagscale_deploy.api.cases import Case

WORST_FIRST: tuple[State, ...] = ("failed", "warning", "passed", "skipped")
MARKS = {"failed": ("✗", "red"), "warning": ("!", "yellow"), "passed": ("✓", "green"), "skipped": ("·", "dim")}
LONGEST = max(len(each.name) for each in CHECKS)
GROUPS = {each.name: each.group for each in CHECKS}


def show_check(console: Console, report: CheckReport) -> None:
    """`check`: what every host is, one verdict for every check, and how many of them there are."""
    rows = [
        (
            name,
            console.state("failed" if each.error else "ok"),
            describe_facts(each.facts) if each.facts else str(each.error and each.error.problem),
        )
        for name, each in report.observations.items()
    ]
    console.table(counted(len(rows), "host"), ("HOST", "STATE", "FOUND"), rows)
    widest = max((len(each.host) for each in report.verdicts), default=0)
    for group, verdicts in _grouped(report.verdicts):
        console.print()
        console.table(group, ("", "CHECK", "HOST", "FOUND"), [_row(each, widest) for each in verdicts])
    console.print(f"\n{_summary(report)}")


def _grouped(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Groups, those with the worst verdicts first; likewise the verdicts in each."""
    groups: dict[str, list[Verdict]] = {}
    for each in verdicts:
        groups.setdefault(GROUPS[each.check], []).append(each)
    for found in groups.values():
        found.sort(key=_badness)
    return sorted(groups.items(), key=lambda group: _badness(group[1][0]))


def _badness(verdict: Verdict) -> int:
    return WORST_FIRST.index(verdict.state)


def _row(verdict: Verdict, widest: int) -> Sequence[object]:
    """The same columns in every group's table."""
    mark, style = MARKS[verdict.state]
    said = verdict.found
    if verdict.state in ("failed", "warning"):
        said += f"\nexpected: {verdict.expected}" if verdict.expected else ""
        said += f"\n→ {verdict.remedy}" if verdict.remedy else ""
    return Text(mark, style=style), f"{verdict.check:{LONGEST}}", f"{verdict.host:{widest}}", said


def _summary(report: CheckReport) -> str:
    failed, warned = len(report.failed), sum(each.state == "warning" for each in report.verdicts)
    warnings = f", {counted(warned, 'warning')}" if warned else ""
    if failed:
        return f"{counted(failed, 'problem')}{warnings}"
    return f"no problem found{warnings}" + (": this deployment can be run" if report.plan else "")


def check_json(report: CheckReport) -> dict[str, Any]:
    """`check --json`: every verdict, and what every host was found to be."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "checks": [{"group": GROUPS[each.check], **asdict(each)} for each in report.verdicts],
        "hosts": {
            name: {"error": each.error.problem} if each.error else {"facts": asdict(each.facts) if each.facts else None}
            for name, each in report.observations.items()
        },
    }


def cases(report: CheckReport) -> list[Case]:
    """A test case for every verdict, for JUnit: a warning has passed, and says what it warns of."""
    from flagscale_deploy.api.cases import Case  # with an XML parser, which few ask for

    return [
        Case(
            each.check,
            each.host,
            "passed" if each.state == "warning" else each.state,
            message=f"warning: {each.found} → {each.remedy}" if each.state == "warning" else each.found,
            lines=tuple(filter(None, (each.found, each.expected and f"expected: {each.expected}", each.remedy))),
        )
        for each in report.verdicts
    ]
