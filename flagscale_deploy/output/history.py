"""Show `history`: what became of a deployment, and of one run or update its configuration and its command lines."""

from __future__ import annotations

from textwrap import indent

from flagscale_deploy.deploy.history import Change, History
from flagscale_deploy.deploy.kept_runs import Configuration
from flagscale_deploy.output.console import Console
from flagscale_deploy.support.shell import join, quote
from flagscale_deploy.support.units import counted, format_duration, format_time

MOST_HOSTS, MOST_CHANGED = 4, 8
"""As many hosts, and lines of what was changed or why not, are shown of a change."""


def show_history(console: Console, history: History, *, whole: bool) -> None:
    """Show changes, the newest last; `whole`: with each run's command lines and all that changed."""
    rows = [
        (
            format_time(change.time),
            change.event if change.number is None else f"{change.event} {change.number}",
            change.server or change.run_id,
            _hosts(change.hosts),
            "" if change.took is None else format_duration(change.took),
            tuple(_details(change, whole=whole)),
        )
        for change in history.changes
    ]
    title = f"{history.deployment}: {counted(len(rows), 'change')}"
    console.table(title, ("TIME", "WHAT", "OF", "HOSTS", "TOOK", ""), rows)
    for change in history.changes if whole else ():
        for server, argv in change.argv.items():
            console.print("", f"{server} of run {change.run_id}:", f"  {join(argv)}")
    if history.configuration is not None:
        updates = {change.run_id for change in history.changes if change.event == "updated"}
        _show_configuration(
            console, history.configuration, "update" if history.configuration.run_id in updates else "run"
        )
    for host, problem in history.unknown.items():
        console.error(f"{host}: {problem}")


def _show_configuration(console: Console, kept: Configuration, kind: str) -> None:
    """Show the configuration of a run or an update, and who keeps it."""
    of = f"{kind} {kept.run_id}"
    if kept.run is not None:
        hosts = ", ".join(str(host["name"]) for host in kept.run["hosts"])
        console.print("", f"configuration of {of}, kept by {kept.host}:", f"  # hosts: {hosts}")
        console.text(indent(kept.run["configuration"].rstrip(), "  "))
    if kept.difference is not None:
        console.print("", f"changed since {kept.difference.run_id}:")
        console.text(indent("\n".join(kept.difference.history) or "nothing", "  "))
    if kept.problem:
        console.error(f"configuration of {of}: {kept.problem}")
    if kept.others:
        console.error(f"{', '.join(kept.others)}: another configuration of {of} is kept there")


def _hosts(hosts: tuple[str, ...]) -> str:
    more = f" and {len(hosts) - MOST_HOSTS} more" if len(hosts) > MOST_HOSTS else ""
    return ", ".join(hosts[:MOST_HOSTS]) + more


def _details(change: Change, *, whole: bool) -> list[str]:
    """Return who did it and why, and what a run or an update has that what ran before had not."""
    who = [f"by {change.by}"] if change.by else []
    evidence = [f"evidence: {change.evidence}"] if change.evidence else []
    why = change.reason.splitlines()
    why = why if whole else [*why[: MOST_CHANGED - 1], *why[MOST_CHANGED - 1 :][-1:]]  # the cause comes last
    changed = list(change.changed if whole else change.changed[:MOST_CHANGED])
    left_out = len(change.changed) - len(changed)
    more = [f"… {counted(left_out, 'more change')}: `history {quote(change.run_id)}`"] if left_out else []
    return [*who, *why, *evidence, *changed, *more]
