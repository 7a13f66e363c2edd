"""What a lab is, as its keeper writes it down and everybody else reads it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Container
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.slots import STATE, Slot


@dataclass(frozen=True)
class HostState:
    """A host: its name, address, the machine's pid of its first process and the inode of its pid namespace."""

    name: str
    address: str
    pid: int
    namespace: int

    @property
    def alive(self) -> bool:
        """Whether its first process lives; the namespace tells it from a later process with the same pid."""
        return lives_in(self.pid, (self.namespace,))

    def power_off(self) -> None:
        """End every process of the host at once: the kernel ends a pid namespace with its first process."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True)
class LabState:
    """A lab: its slot, the pid of its keeper, the pid that it lives and dies with (None: until `down`), its hosts."""

    slot: Slot
    keeper: int
    owner: int | None
    hosts: tuple[HostState, ...]

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> LabState:
        read = json.loads(text)
        hosts = tuple(HostState(**host) for host in read["hosts"])
        return cls(Slot(**read["slot"]), read["keeper"], read["owner"], hosts)

    @classmethod
    def of(cls, slot: Slot) -> LabState | None:
        """Return the state that the slot's keeper has written, or None where there is none (yet)."""
        try:
            return cls.loads((slot.directory / STATE).read_text())
        except FileNotFoundError:
            return None


def pid_namespace(pid: int) -> int | None:
    """Return the inode of a process's pid namespace; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def lives_in(pid: int, namespaces: Container[int]) -> bool:
    """Whether this is a living process of one of these pid namespaces (inodes); a zombie still has its namespaces."""
    return pid_namespace(pid) in namespaces and not is_zombie(pid)


def is_first(pid: int) -> bool:
    """Whether a process is the first one of its pid namespace."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in lines)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has waited for it yet, or it is gone.

    A machine whose first process doesn't wait for its children (a bare container) keeps them so for good.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
