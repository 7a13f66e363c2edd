"""What a deployment has on a lab host, seen by the lab's own eyes: none of the product's code takes part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.lab.host import Host

PROGRAM = Path(__file__).with_name("inspect_host.py")


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
    """Look for a deployment on a living host; `known` are processes of it that were seen before."""
    asked = {"deployment": deployment, "known": [asdict(process) for process in served if process.host == host.name]}
    answer = json.loads(host.run(["python3", "-", json.dumps(asked)], stdin=PROGRAM.read_text()).stdout)
    processes = tuple(Process(host.name, **process) for process in answer["processes"])
    return Inspection(host.name, processes, tuple(answer["ports"]), tuple(answer["directories"]))
