"""What a deployment has on a lab host, seen by the lab's own eyes: none of the product's code takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.lab import inspect_host
from tests.lab.boot import HOME
from tests.lab.host import Host


@dataclass(frozen=True)
class Process:
    """A process on a host; `start` (clock ticks since boot) tells it from a later one with the same pid."""

    host: str
    pid: int
    start: int
    command: str


@dataclass(frozen=True)
class Leftover:
    """One thing that is left, and where."""

    host: str
    kind: Literal["process", "port", "directory"]
    what: str


@dataclass(frozen=True)
class Inspection:
    """A deployment's living processes, the TCP ports they listen on, and the directories there are."""

    host: str
    processes: tuple[Process, ...]
    ports: tuple[int, ...]
    directories: tuple[str, ...]

    def leftovers(self) -> list[Leftover]:
        return [
            *(Leftover(self.host, "process", f"{process.pid} {process.command}") for process in self.processes),
            *(Leftover(self.host, "port", str(port)) for port in self.ports),
            *(Leftover(self.host, "directory", path) for path in self.directories),
        ]


def inspect(host: Host, deployment: str, served: Sequence[Process] = ()) -> Inspection:
    """Look for a deployment on a living host; `served` are processes of it that were seen before."""
    root = str(host.file(""))
    table = dict(inspect_host.living(root))
    ours = inspect_host.family(table, deployment)
    for process in served:
        seen = table.get(process.pid)
        if process.host == host.name and seen is not None and seen.start == process.start:
            ours.add(process.pid)
    return Inspection(
        host.name,
        tuple(Process(host.name, pid, table[pid].start, table[pid].command) for pid in sorted(ours)),
        tuple(sorted({port for pid in ours for port in inspect_host.listening(root, pid)})),
        tuple(sorted(inspect_host.directories(root, str(HOME), deployment))),
    )
