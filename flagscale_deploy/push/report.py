"""How a push ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.errors import HostError
from flagscale_deploy.remote.messages.push import PushReply
from flagscale_deploy.remote.push.tree import from_wire


@dataclass(frozen=True)
class Differences:
    """The paths that a host does not have, has with another content, or has with another mode."""

    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.different or self.modes)

    @classmethod
    def parse(cls, reply: PushReply) -> Differences:
        """Return what a host replied to `compare`."""
        return cls(*(tuple(map(shown, paths)) for paths in (reply["missing"], reply["different"], reply["modes"])))


@dataclass(frozen=True)
class HostReport:
    """One host: how it differed before, and the bytes that came to it."""

    before: Differences
    bytes: int = 0


@dataclass(frozen=True)
class PushReport:
    """What there was to push, and how it went. `hosts` has those where all is well (or, of a check, was compared)."""

    source: str
    dest: str
    files: int
    bytes: int
    hosts: Mapping[str, HostReport]
    failed: Mapping[str, HostError]
    sent: int
    """Bytes that left the source."""
    elapsed: float
    check: bool = False
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0; 3 where a host could not be reached; 1 where one failed or, of a check, differs."""
        worst = max((error.exit_code for error in self.failed.values()), default=0)
        differs = self.check and any(each.before for each in self.hosts.values())
        return worst or int(differs)


def shown(path: str) -> str:
    """Return a path that travelled as people read it."""
    return from_wire(path).decode(errors="backslashreplace")
