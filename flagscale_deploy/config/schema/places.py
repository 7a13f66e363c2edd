"""Where in the user's files and words a setting stands, and the faults found there."""

from __future__ import annotations

from dataclasses import dataclass, field

from flagscale_deploy.errors import Fault, InputError

Path = tuple[str, ...]
"""A key path from the root of the composed configuration; list indexes are text."""


@dataclass
class Places:
    """Names the place of a key path: the override that wrote it, else the file that it came from.

    `groups` maps the path where a group file is mounted to that file; `overrides` the paths that the command line set.
    """

    file: str
    groups: dict[Path, str] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """`qwen.yaml: deploy.port`; a path of a group file is given as that file has it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return f"override {self.overrides[path[:length]]}"
        for mount in sorted(self.groups, key=len, reverse=True):
            if path[: len(mount)] == mount:
                return _joined(self.groups[mount], path[len(mount) :])
        return _joined(self.file, path)


@dataclass
class Findings:
    """Collects faults, so that all of them are reported together."""

    places: Places
    faults: list[Fault] = field(default_factory=list)

    def add(self, path: Path, problem: str, remedy: str) -> None:
        fault = Fault(self.places.where(path), problem, remedy)
        if fault not in self.faults:
            self.faults.append(fault)

    def raise_any(self) -> None:
        """InputError of all faults so far, if there are any."""
        if self.faults:
            raise InputError(self.faults)


def _joined(file: str, path: Path) -> str:
    return f"{file}: {'.'.join(path)}" if path else file
