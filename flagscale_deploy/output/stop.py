"""How stopping and cleaning up ended."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flagscale_deploy.deploy.stop import StopReport
from flagscale_deploy.deploy.stop import describe as describe_stop
from flagscale_deploy.output.console import Console


def show_stop(console: Console, report: StopReport, *, to_error: bool = False) -> None:
    """`stop` and `cleanup`."""
    write = console.note if to_error else console.print
    for host in report.hosts:
        write(f"  {host.host}: {describe_stop(host)}")
    for name, paths in report.removed.items():
        for path in paths:
            write(f"  {name}: removed {path}")
    for name, kept in report.kept.items():
        for each in kept:
            console.error(f"  {name}: kept {each['path']}: {each['why']}")
    if any(host.state not in ("stopped", "nothing") for host in report.hosts):
        console.error("not everything is verified gone; run the command again when the hosts can be reached")


def stop_json(report: StopReport) -> dict[str, Any]:
    """`stop --json`, `cleanup --json`."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "hosts": {host.host: asdict(host) for host in report.hosts},
        "kept": {name: [dict(each) for each in kept] for name, kept in report.kept.items()},
        "removed": {name: list(paths) for name, paths in report.removed.items()},
    }
