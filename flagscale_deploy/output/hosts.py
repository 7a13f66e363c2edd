"""Hosts: the inventory, what they are, what a command said."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.api import describe
from flagscale_deploy.errors import HostError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.logs import line_printer, unread
from flagscale_deploy.support.units import GIB, counted
from flagscale_deploy.transport.base import Outcome
from flagscale_deploy.transport.fleet import answers, failures


def show_inventory(console: Console, inventory: Inventory) -> None:
    """`hosts`."""
    head = inventory.head.name
    named = [name for name in inventory.groups if name not in ("all", "ungrouped")]
    groups = {host: [name for name in named if host in inventory.members(name)] for host in inventory.names}
    rows = [
        (
            host.name + (" (head)" if host.name == head else ""),
            "local" if host.connection == "local" else f"{host.user + '@' if host.user else ''}{host.address}"
            + (f":{host.port}" if host.port else ""),
            "probe" if host.gpus is None else host.gpus,
            host.type,
            host.node_ip or host.interface or "probe",
            ", ".join(groups[host.name]),
        )
        for host in inventory.hosts
    ]  # fmt: skip
    console.table(
        f"{counted(len(rows), 'host')} of {inventory.source}",
        ("HOST", "ADDRESS", "GPUS", "TYPE", "DATA NETWORK", "GROUPS"),
        rows,
    )


def describe_facts(facts: Facts) -> str:
    """A host's facts in a line, with memory and disk."""
    return (
        f"{describe(facts)}; {facts.cpus} CPUs, "
        f"{facts.memory_available / GIB:.0f} of {facts.memory_total / GIB:.0f} GiB free, "
        f"disk {facts.disk_free / GIB:.0f} GiB free, /dev/shm {facts.shm_free / GIB:.1f} GiB"
    )


def show_outcomes(console: Console, results: Mapping[str, Outcome | HostError], as_json: bool) -> int:
    """`exec`: every host's output, and its exit status where it is not 0."""
    found, failed = answers(results), failures(results)
    if as_json:
        ended = {name: {"exit_code": each.exit_code, "stdout": each.stdout.decode(errors="replace"),
                        "stderr": each.stderr.decode(errors="replace"), "seconds": round(each.elapsed, 3),
                        "cut": each.cut}
                 for name, each in found.items()}  # fmt: skip
        console.json({"schema": 1, "hosts": ended, "failed": {name: error.problem for name, error in failed.items()}})
    else:
        show = line_printer(console, list(results), as_json=False)
        for name, each in found.items():
            for source, data in (("", each.stdout), ("stderr", each.stderr)):
                show(name, source, data.decode(errors="replace").splitlines())
            if each.exit_code:
                console.error(f"{name}: exit status {each.exit_code}")
    for name, each in found.items():
        if each.cut:
            console.error(f"✗ {name}: {each.cut:,} bytes of its output were cut (--max-output)")
    code = unread(console, failed)
    return code or (1 if any(each.exit_code or each.cut for each in found.values()) else 0)
