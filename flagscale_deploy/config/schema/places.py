"""Places of settings in the user's files and words, and faults at them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from flagscale_deploy.errors import Fault

T = TypeVar("T")
Path = tuple[str, ...]
"""A key path from the root of the composed configuration; list indexes are text."""


@dataclass
class Places:
    """The places of key paths: the override that wrote it, else the file that it came from.

    `groups` maps the path where a group file is mounted to that file; `overrides` the paths that the command line set.
    """

    file: str
    groups: dict[Path, str] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return `qwen.yaml: deploy.port`; the path is the one that the file itself has."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return f"override {self.overrides[path[:length]]}"
        for mount in sorted(self.groups, key=len, reverse=True):
            if path[: len(mount)] == mount:
                return _joined(self.groups[mount], path[len(mount) :])
        return _joined(self.file, path)

    def locate(self, faults: Iterable[KeyFault]) -> list[Fault]:
        """Return the faults with the places of their key paths, each once."""
        located = (Fault(self.where(fault.path), fault.problem, fault.remedy) for fault in faults)
        return list(dict.fromkeys(located))


@dataclass(frozen=True)
class KeyFault:
    """One thing that is wrong at a key path, and what to do about it."""

    path: Path
    problem: str
    remedy: str


class KeyFaults(list[KeyFault]):
    """What is wrong with one part of a configuration."""

    def add(self, path: Path, problem: str, remedy: str) -> None:
        """Add a fault."""
        self.append(KeyFault(path, problem, remedy))

    def take(self, checked: tuple[T, KeyFaults]) -> T:
        """Return the value of a checked part; keep its faults."""
        value, faults = checked
        self += faults
        return value


Checked = tuple[T, KeyFaults]
"""A value, and what is wrong with the settings that it was read from: those are left out of it."""


def _joined(file: str, path: Path) -> str:
    return f"{file}: {'.'.join(path)}" if path else file
