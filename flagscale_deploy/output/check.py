"""Show the results of checks: what to act on last, where a terminal ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from flagscale_deploy.api import CheckReport
from flagscale_deploy.checks.registry import CHECKS
from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.hosts import describe_facts
from flagscale_deploy.support.units import counted

if TYPE_CHECKING:
    from flagscale_deploy.api.cases import Case
    from flagscale_deploy.facts.model import Facts

MARKS = {"failed": ("✗", "red"), "warning": ("!", "yellow"), "passed": ("✓", "green"), "skipped": ("·", "dim")}
LONGEST = max(len(check.name) for check in CHECKS)
GROUPS = {check.name: check.group for check in CHECKS}


def show_check(console: Console, report: CheckReport) -> None:
    """Show `check`: the facts of every host, what passed if verbose, then warnings, failures and a summary.

    Where no host answered, that is one line: why each of them did not stands in the progress already.
    """
    answered = any(observation.facts for observation in report.observations.values())
    if answered or console.verbose or not report.observations:
        _show_hosts(console, report)
    if console.verbose:
        _show_groups(console, [verdict for verdict in report.verdicts if verdict.state in ("passed", "skipped")])
    silent = {name for name, observation in report.observations.items() if observation.facts is None}
    for title, state in (("warnings", "warning"), ("failed", "failed")):
        problems = [verdict for verdict in report.verdicts if verdict.state == state]
        if not answered and not console.verbose:
            problems = [verdict for verdict in problems if verdict.host not in silent]
        _show_table(console, title, problems)
    console.print(*([""] if answered or console.verbose else []), _summary(report, console.verbose))


def _show_hosts(console: Console, report: CheckReport) -> None:
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


def _show_groups(console: Console, verdicts: Iterable[Verdict]) -> None:
    """Show verdicts by group, in each the passed ones first."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.state):
        groups.setdefault(GROUPS[verdict.check], []).append(verdict)
    for group in dict.fromkeys(GROUPS.values()):
        _show_table(console, group, groups.get(group, ()))


def _show_table(console: Console, title: str, verdicts: Sequence[Verdict]) -> None:
    if verdicts:
        widest = max(len(verdict.host) for verdict in verdicts)
        console.print()
        console.table(title, ("", "CHECK", "HOST", "FOUND"), [_row(verdict, widest) for verdict in verdicts])


def _row(verdict: Verdict, widest: int) -> Sequence[object]:
    """Return a table row with the same columns in every group."""
    mark, style = MARKS[verdict.state]
    lines = [verdict.found]
    if verdict.state in ("failed", "warning"):
        lines += [f"expected: {verdict.expected}"] if verdict.expected else []
        lines += [f"→ {verdict.remedy}"] if verdict.remedy else []
    return Text(mark, style=style), f"{verdict.check:{LONGEST}}", f"{verdict.host:{widest}}", tuple(lines)


def _summary(report: CheckReport, verbose: bool) -> str:
    counts = Counter(verdict.state for verdict in report.verdicts)
    warnings = f", {counted(counts['warning'], 'warning')}" if counts["warning"] else ""
    silent = [name for name, observation in report.observations.items() if observation.facts is None]
    if silent and len(silent) == len(report.observations):
        return f"no host answered{_why(report, silent[0])}"
    if counts["failed"] or silent:
        problems = counted(counts["failed"], "problem") if counts["failed"] else ""
        return f"{problems or counted(len(silent), 'host') + ' did not answer'}{warnings}"
    passed = f" ({counted(counts['passed'], 'check')} passed; details with -v)" if not verbose else ""
    return f"no problem found{warnings}" + (": this deployment can be run" if report.plan else "") + passed


def _why(report: CheckReport, host: str) -> str:
    """Return why the first host did not answer, with the remedy, and how many others did not."""
    error, others = report.observations[host].error, len(report.observations) - 1
    remedies = [verdict.remedy for verdict in report.failed if verdict.host == host and verdict.remedy]
    return (
        f": {host}: {error.problem if error else 'no reply'}"
        + (f" → {remedies[0]}" if remedies else "")
        + (f" (and {counted(others, 'other host')})" if others else "")
    )


def check_json(report: CheckReport) -> dict[str, object]:
    """Return `check --json`: every verdict, and the facts of every host."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "checks": [{"group": GROUPS[verdict.check], **asdict(verdict)} for verdict in report.verdicts],
        "hosts": {
            name: {"error": observation.error.problem}
            if observation.error
            else {"facts": _facts(observation.facts) if observation.facts else None}
            for name, observation in report.observations.items()
        },
    }


def _facts(facts: Facts) -> dict[str, object]:
    """Return the facts of a host, but what it keeps of a run, which `history` shows."""
    return {name: value for name, value in asdict(facts).items() if name != "kept"}


def properties(report: CheckReport, deployment: str | None) -> dict[str, str]:
    """Return the properties of the JUnit suite: the deployment, if there is one, and versions."""
    from flagscale_deploy.api.cases import versions_of

    return {**({"deployment": deployment} if deployment else {}), **versions_of(report.observations)}


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
            busy=report.busy,
        )
        for verdict in report.verdicts
    ]
