"""Show how `stop` and `cleanup` ended."""

from __future__ import annotations

from dataclasses import asdict

from flagscale_deploy.deploy.stop import StopReport
from flagscale_deploy.deploy.stop import describe as describe_stop
from flagscale_deploy.output.console import Console


def show_stop(console: Console, report: StopReport, *, to_error: bool = False) -> None:
    """Show `stop` and `cleanup`: each host's result, and removed and kept files."""
    write = console.note if to_error else console.print
    for host in report.hosts:
        write(f"  {host.host}: {describe_stop(host)}")
    for name, paths in report.removed.items():
        for path in paths:
            write(f"  {name}: removed {path}")
    for name, kept in report.kept.items():
        for item in kept:
            console.error(f"  {name}: kept {item['path']}: {item['why']}")
    if any(host.state not in ("stopped", "nothing") for host in report.hosts):
        console.error(
            "some processes may be left, or come back after a reboot (deploy.restart.boot); "
            "run the command again when all hosts can be reached"
        )


def stop_json(report: StopReport) -> dict[str, object]:
    """Return `stop --json` or `cleanup --json`."""
    return {
        "schema": 1,
        "ok": report.exit_code == 0,
        "hosts": {host.host: asdict(host) for host in report.hosts},
        "kept": {name: [dict(item) for item in kept] for name, kept in report.kept.items()},
        "removed": {name: list(paths) for name, paths in report.removed.items()},
    }
