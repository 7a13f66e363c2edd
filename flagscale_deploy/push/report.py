"""The result of a push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.remote.messages.push import PushReply, PushTree
from flagscale_deploy.remote.push.tree import from_wire
from flagscale_deploy.support.units import format_size

MOST_NOTES = 10


@dataclass(frozen=True)
class Differences:
    """The paths that a host lacks, has with other content, or has with another mode."""

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
    """The result of one host: how it differed before, and the bytes that it received."""

    before: Differences
    bytes: int = 0


@dataclass(frozen=True)
class PushReport:
    """What was pushed, and the result of each host; `hosts` has those that succeeded, or that a check compared."""

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
        """Return 0, 3 if a host could not be reached, or 1 if one failed or, in a check, differs."""
        worst = max((error.exit_code for error in self.failed.values()), default=0)
        differs = self.check and any(host.before for host in self.hosts.values())
        return worst or int(differs)


def faults_of_paths(compared: Mapping[str, PushReply]) -> list[Fault]:
    """Return a fault for each path that the push cannot replace, from the replies to `compare`."""
    return [
        Fault(name, f"{shown(path)} is a directory there, or a file in the place of one", "move it away")
        for name, reply in compared.items()
        for path in reply["blocked"]
    ]


def faults_of_space(dest: str, prepared: Mapping[str, PushReply]) -> list[Fault]:
    """Return a fault for each host that lacks space, from the replies to `prepare`."""
    return [
        Fault(
            name,
            f"{dest} needs {format_size(reply['needed'])}, and {format_size(reply['free'])} are free",
            "free disk space, or leave the host out with --limit",
        )
        for name, reply in prepared.items()
        if reply["needed"] > reply["free"]
    ]


def notes_of(tree: PushTree, source: str, *, links_left_out: bool) -> tuple[str, ...]:
    """Return what the user should know about a tree: what is left out of it, and which links lead out of it."""
    notes = [f"left out, because it is not a file: {shown(path)}" for path in tree["left_out"][:MOST_NOTES]]
    if len(tree["left_out"]) > MOST_NOTES:
        notes.append(f"left out, because they are not files: {len(tree['left_out']) - MOST_NOTES} more")
    if tree["outside"]:
        links = ", ".join(map(shown, tree["outside"][:3])) + (", …" if len(tree["outside"]) > 3 else "")
        what = f"left out, because they lead out of {source}" if links_left_out else f"links that lead out of {source}"
        notes.append(f"{what}: {links}; --copy-links sends their targets instead")
    return tuple(notes)


def shown(path: str) -> str:
    """Return a path of a message as text for people, on one line."""
    text = from_wire(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
