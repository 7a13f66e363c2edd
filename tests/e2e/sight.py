"""What there is, seen without the product: looks at lab hosts, and a deployment's processes on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Host, inspect_host

PROGRAM = Path(__file__).with_name("see.py").read_text()


@dataclass(frozen=True)
class Process:
    """A process; `start` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    start: int
    command: str
    marker: str


@dataclass(frozen=True)
class Sight:
    """Everything that was there."""

    processes: frozenset[Process]
    ports: frozenset[int]
    files: frozenset[str]

    @classmethod
    def read(cls, text: str) -> Sight:
        seen = json.loads(text)
        processes = frozenset(Process(*process) for process in seen["processes"])
        return cls(processes, frozenset(seen["ports"]), frozenset(seen["files"]))

    def new_since(self, earlier: Sight) -> list[str]:
        """Return processes and ports that were not there: nothing, after a clean stop."""
        born = {(process.pid, process.start) for process in earlier.processes}
        processes = [
            f"{process.pid} {process.command}" for process in self.processes if (process.pid, process.start) not in born
        ]
        return processes + [f"port {port}" for port in self.ports - earlier.ports]


def look_at(host: Host, files: Iterable[str] = (), prune: Iterable[str] = ()) -> Sight:
    """Look at a lab host from its own console."""
    asked = json.dumps({"files": list(files), "prune": list(prune)})
    return Sight.read(host.run(["python3", "-", asked], stdin=PROGRAM).stdout)


class Presence:
    """A deployment's processes on this machine, collected as they come and go while a `with` block runs."""

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._known: dict[tuple[int, int], str] = {}
        self._over = threading.Event()
        self._collector = threading.Thread(target=self._collect)

    def __enter__(self) -> Presence:
        self._collector.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._collector.join()

    @property
    def commands(self) -> list[str]:
        """What ran, whether it still does or not."""
        return list(self._known.values())

    def living(self) -> list[str]:
        """Return what of it lives, and what else carries the marker."""
        self._look()
        table = dict(inspect_host.living())
        alive = {(pid, seen.start) for pid, seen in table.items()}
        return [f"{pid} {command}" for (pid, start), command in self._known.items() if (pid, start) in alive]

    def _collect(self) -> None:
        while not self._over.wait(0.5):
            self._look()

    def _look(self) -> None:
        table = dict(inspect_host.living())
        for pid in inspect_host.family(table, self._deployment):
            self._known[pid, table[pid].start] = table[pid].command
