"""Show hosts: the inventory, their facts, and the output of `exec`."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.api import describe
from flagscale_deploy.errors import HostError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import line_printer, show_failures
from flagscale_deploy.support.units import GIB, counted
from flagscale_deploy.transport.base import Outcome
from flagscale_deploy.transport.fleet import answers, failures

MOST_GROUPS = 20
"""Groups of one host that a table names; `--json` has all."""


def show_inventory(console: Console, inventory: Inventory) -> None:
    """Show `hosts`: the inventory as a table."""
    head = inventory.head.name
    named = [name for name in inventory.groups if name not in ("all", "ungrouped")]
    groups: dict[str, list[str]] = {host: [] for host in inventory.names}
    for name in named:
        for host in inventory.members(name) & groups.keys():
            groups[host].append(name)
    rows = [
        (
            host.name + (" (head)" if host.name == head else ""),
            "local" if host.connection == "local" else f"{host.user + '@' if host.user else ''}{host.address}"
            + (f":{host.port}" if host.port else ""),
            "probe" if host.gpus is None else host.gpus,
            host.type,
            host.node_ip or host.interface or "probe",
            ", ".join(groups[host.name][:MOST_GROUPS]) + (", …" if len(groups[host.name]) > MOST_GROUPS else ""),
        )
        for host in inventory.hosts
    ]  # fmt: skip
    console.table(
        f"{counted(len(rows), 'host')} of {inventory.source}",
        ("HOST", "ADDRESS", "GPUS", "TYPE", "DATA NETWORK", "GROUPS"),
        rows,
    )


def describe_facts(facts: Facts) -> str:
    """Return a host's facts in one line, with memory and disk."""
    return (
        f"{describe(facts)}; {counted(facts.cpus, 'CPU')}, "
        f"{facts.memory_available / GIB:.0f} of {facts.memory_total / GIB:.0f} GiB free, "
        f"disk {facts.disk_free / GIB:.0f} GiB free, /dev/shm {facts.shm_free / GIB:.1f} GiB"
    )


def show_outcomes(console: Console, results: Mapping[str, Outcome | HostError], as_json: bool) -> int:
    """Show `exec`: every host's output, and its exit status where it is not 0. Return our own exit status."""
    outcomes, failed = answers(results), failures(results)
    if as_json:
        ended = {name: {"exit_code": outcome.exit_code, "stdout": outcome.stdout.decode(errors="replace"),
                        "stderr": outcome.stderr.decode(errors="replace"), "seconds": round(outcome.elapsed, 3),
                        "cut": outcome.cut}
                 for name, outcome in outcomes.items()}  # fmt: skip
        console.json({"schema": 1, "hosts": ended, "failed": {name: error.problem for name, error in failed.items()}})
    else:
        show = line_printer(console, list(results), as_json=False)
        for name, outcome in outcomes.items():
            for source, data in (("", outcome.stdout), ("stderr", outcome.stderr)):
                show(name, source, data.decode(errors="replace").splitlines())
            if outcome.exit_code:
                console.error(f"{name}: exit status {outcome.exit_code}")
    for name, outcome in outcomes.items():
        if outcome.cut:
            console.error(f"✗ {name}: {outcome.cut:,} bytes of its output were cut (--max-output)")
    code = show_failures(console, failed)
    return code or (1 if any(outcome.exit_code or outcome.cut for outcome in outcomes.values()) else 0)
