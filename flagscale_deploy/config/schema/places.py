"""Places of settings in the user's files and words, and faults at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.errors import MOST_FAULTS, Fault, at_most
from flagscale_deploy.support.value import Value

T = TypeVar("T")
Path = tuple[str, ...]
"""A key path from the root of the composed configuration; list indexes are text."""


@dataclass(frozen=True)
class Document:
    """The value of a file. `find` returns line and column of its beginning and of the keys of a path that are there."""

    file: str
    value: Value
    find: Callable[[Path], list[tuple[int, int]]]

    def where(self, path: Path) -> str:
        """Return `qwen.yaml:7:3: deploy.port`, with the line and column of the last key of the path that is there."""
        line, column = self.find(path)[-1]
        place = f"{self.file}:{line}:{column}"
        return f"{place}: {'.'.join(path)}" if path else place

    def depth(self, path: Path) -> int:
        """Return how many keys of a path the file has."""
        return len(self.find(path)) - 1


@dataclass
class Places:
    """The places of key paths: the override that wrote it, else the file that it came from.

    `layers` are the files that were laid over one another, each with the path where it is mounted, the last one above
    all others; `overrides` are the paths that the command line set.
    """

    own: Document
    layers: list[tuple[Path, Document]] = field(default_factory=list)
    overrides: dict[Path, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Return the file that was named on the command line."""
        return self.own.file

    def where(self, path: Path) -> str:
        """Return `qwen.yaml:7:3: deploy.port`; the path is the one that the file itself has."""
        folded = {tuple(map(flag_name, key)): word for key, word in self.overrides.items()}
        for length in range(len(path), 0, -1):
            if word := folded.get(tuple(map(flag_name, path[:length]))):
                return f"override {word}"
        depth, holder, mount = 0, self.own, cast(Path, ())
        for at, layer in self.layers:
            reached = len(at) + layer.depth(path[len(at) :])
            if path[: len(at)] == at and reached >= max(depth, 1):
                depth, holder, mount = reached, layer, at
        return holder.where(path[len(mount) :])

    def locate(self, faults: Iterable[KeyFault]) -> list[Fault]:
        """Return the faults with the places of their key paths, each once, and at most MOST_FAULTS of them."""
        located = (Fault(self.where(fault.path), fault.problem, fault.remedy) for fault in faults)
        return at_most(located, self.file, faults.more if isinstance(faults, KeyFaults) else 0)


@dataclass(frozen=True)
class KeyFault:
    """One thing that is wrong at a key path, and what to do about it."""

    path: Path
    problem: str
    remedy: str


class KeyFaults(list[KeyFault]):
    """What is wrong with one part of a configuration: MOST_FAULTS, and how many `more` there are."""

    more = 0

    def append(self, fault: KeyFault) -> None:
        """Add a fault, or count it."""
        if len(self) < MOST_FAULTS:
            super().append(fault)
        else:
            self.more += 1

    def __iadd__(self, faults: Iterable[KeyFault]) -> KeyFaults:  # type: ignore[override,misc]
        """Add faults."""
        for fault in faults:
            self.append(fault)
        self.more += faults.more if isinstance(faults, KeyFaults) else 0
        return self

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
