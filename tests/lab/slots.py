"""Slots: what keeps labs on one machine apart. A lab holds one slot; its number gives subnet, bridge and directory.

`/var/lib/fsdlab/<slot>/lock` is held (flock) by the lab's keeper for as long as the lab lives, so a slot whose lock is
free belongs to nobody: whatever a keeper that was killed left there is taken away by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/var/lib/fsdlab")
SLOTS = 250
STATE, LOCK = "lab.json", "lock"


@dataclass(frozen=True)
class Slot:
    """One of the places that a lab can be in."""

    number: int

    @property
    def directory(self) -> Path:
        """Keys, state and the hosts' own files; on disk, since hosts write logs to their /tmp."""
        return ROOT / str(self.number)

    @property
    def bridge(self) -> str:
        return f"fsdlab{self.number}"

    @property
    def network(self) -> str:
        return f"10.77.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        """The machine's own address in the lab."""
        return f"10.77.{self.number}.1"

    def address(self, index: int) -> str:
        return f"10.77.{self.number}.{11 + index}"

    def cable(self, index: int) -> str:
        """Return the machine's end of a host's link; interface names end at 15 characters."""
        return f"{self.bridge}h{index + 1}"

    def owns(self, link: str) -> bool:
        return link == self.bridge or link.startswith(f"{self.bridge}h")


@contextmanager
def registry() -> Iterator[None]:
    """Held while slots are taken, given back or reaped; short."""
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(ROOT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def known_slots() -> list[Slot]:
    """Slots that have a directory, with or without a living lab."""
    with suppress(FileNotFoundError):
        return sorted((Slot(int(path.name)) for path in ROOT.iterdir()), key=lambda slot: slot.number)
    return []


def lock(slot: Slot) -> int | None:
    """Take a slot's lock: its descriptor, to be held open, or None where a living keeper has it."""
    slot.directory.mkdir(exist_ok=True)
    descriptor = os.open(slot.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
