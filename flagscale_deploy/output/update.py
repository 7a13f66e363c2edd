"""Show how a change of a running deployment ended."""

from __future__ import annotations

from flagscale_deploy.api import ChangeResult
from flagscale_deploy.api.running import endpoints
from flagscale_deploy.output.console import Console
from flagscale_deploy.support.units import counted, format_duration


def show_change(console: Console, result: ChangeResult) -> None:
    """Show `update` and `rollback`: what was changed of each server, how long it took, and the endpoints."""
    difference, status = result.difference, result.status
    if status is None:
        console.print(f"Nothing to change: it runs with this very configuration (run {difference.run_id}).")
    else:
        console.print(f"{status.deployment} is changed, after {format_duration(result.elapsed)} ({result.change_id}):")
        for line in difference.history:
            console.text(f"    {line}")
        if same := len(difference.servers) - len(difference.changed):
            console.print(f"    {counted(same, 'server')} went on as {'it was' if same == 1 else 'they were'}")
        console.print(*(f"endpoint {endpoint}" for endpoint in status.endpoints))
    for note in result.notes:
        console.error(f"! {note}")


def change_json(result: ChangeResult) -> dict[str, object]:
    """Return `update --json` and `rollback --json` of a change that is over."""
    status = result.status
    entrances = endpoints(status.entrances, status.models) if status else ()
    return {
        "schema": 1,
        "verdict": "changed" if status else "nothing to change",
        "change_id": result.change_id or None,
        "difference": result.difference.json(),
        "endpoints": [{"endpoint": endpoint, "model": served} for endpoint, served in entrances],
        "elapsed": result.elapsed,
        "notes": list(result.notes),
    }
