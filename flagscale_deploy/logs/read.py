"""Lines of all hosts' logs, as they are and as they come; a connection that is lost costs none and doubles none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flagscale_deploy.diagnosis.clocks import Clock
from flagscale_deploy.diagnosis.clocks import heard as clock_heard
from flagscale_deploy.errors import HostError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs.collect import COLLECT_SECONDS, Wanted, silent
from flagscale_deploy.logs.receive import MAX_FILES
from flagscale_deploy.remote.logs.lines import LONGEST
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Tell, through_losses
from flagscale_deploy.transport.remote_program import Program

FOREVER_SECONDS = 10 * 365 * 86400.0
PATIENCE_SECONDS = 300.0
"""How long a host that is followed may be away (`logs -f`)."""
LEFT_KEPT = 256
CUT = " … [line cut]"
LONGEST_SAID = LONGEST + 40
"""A line that was cut on its host, with the mark that says so."""

Lines = Callable[[str, str, Sequence[str]], None]
"""Takes host, file, and lines of it that came together."""


def read_logs(
    fleet: Fleet,
    deployment: str,
    show: Lines,
    *,
    tail: int | None,
    follow: bool,
    kinds: Sequence[str] | None,
    wanted: Wanted | None = None,
    timeout: float = COLLECT_SECONDS,
    max_bytes: int | None = None,
    patience: float = PATIENCE_SECONDS,
    tell: Tell = silent,
    clocks: dict[str, Clock] | None = None,
) -> dict[str, int | HostError]:
    """Hand over the last `tail` lines (None: all) of each file of these kinds, then new ones as they come.

    Returns how many files each host had. With `follow` it ends when the caller is interrupted, or all hosts are lost: a
    host whose connection is lost for longer than `patience` seconds. One that comes back goes on where it was; `tell`
    hears of both. Without, it takes `timeout` seconds at most, and no more is read of a host than about `max_bytes`.
    Of `wanted` only the times count. `clocks` gets the clock of each host that tells it.
    """
    args: dict[str, Any] = {"deployment": deployment, "tail": tail, "follow": follow, "kinds": kinds}
    if wanted is not None and (wanted.since is not None or wanted.within is not None):
        args |= {"since": wanted.since, "within": wanted.within}
    if clocks is not None:
        args["clock"] = True

    def work(host: Host) -> int:
        limit = FOREVER_SECONDS if follow else timeout
        reading = _Reading(fleet, host.name, args, show, limit, max_bytes, {} if clocks is None else clocks)
        return through_losses(
            fleet, host.name, reading.attempt,
            heard=lambda: reading.heard, patience=patience if follow else 0.0, tell=tell,
        )  # fmt: skip

    return fleet.gather({host.name: partial(work, host) for host in fleet.hosts.values()}, together=True)


@dataclass
class _Reading:
    """What is known of the files of one host: where the next line of each begins."""

    fleet: Fleet
    host: str
    args: Mapping[str, Any]
    show: Lines
    timeout: float
    max_bytes: int | None
    clocks: dict[str, Clock]
    heard: int = 0
    places: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    left: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LEFT_KEPT))
    files: set[str] = field(default_factory=set)
    size: int = 0

    def attempt(self, connection: Connection) -> int:
        args = {**self.args, "host": self.host}
        if self.places:
            args |= {"places": list(self.places.values()), "left": list(self.left)}
        limit = Deadline(self.timeout).remaining
        with Program(
            connection, "follow", args, timeout=limit, cancelled=self.fleet.cancelled, bounded=False
        ) as program:
            for message in program.messages():
                self._take(message)
                if self.max_bytes is not None and self.size > self.max_bytes:
                    break
        return len(self.files)

    def _take(self, message: Mapping[str, Any]) -> None:
        """Lines are shown before their place is noted, and both or neither: a cut comes before a message or after."""
        self.heard += 1
        lines = message.get("lines")
        if not isinstance(lines, list):  # a sign of life, or its clock
            if (clock := clock_heard(message)) is not None:
                self.clocks[self.host] = clock
            return
        file = str(message.get("file", ""))
        self.files.add(file[:LONGEST])
        if lines:
            texts = [line if isinstance(line, str) else str(line) for line in lines]
            self.size += sum(map(len, texts)) + len(texts)
            self.show(self.host, file, [text if len(text) <= LONGEST_SAID else text[:LONGEST] + CUT for text in texts])
        at = message.get("at")
        if at is not None:
            self._note(file, at)
        if len(self.files) > MAX_FILES or len(self.places) > MAX_FILES:
            raise RemoteError(self.host, f"it tells of more than {MAX_FILES:,} log files", "--kind, --since")

    def _note(self, file: str, at: Any) -> None:
        if not _is_place(at):
            raise RemoteError(self.host, "follow: it tells a place in a file that is none")
        key = at["device"], at["inode"]
        before = self.places.get(key)
        if before is not None and _was_truncated(before["at"], at):  # a copy of what it was may come
            self.left.append(before)
        self.places[key] = {"file": file, "at": at}


def _was_truncated(before: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    return bool(before["offset"] > at["offset"]) or not at["head"].startswith(before["head"])


def _is_place(at: Any) -> bool:
    """Whether it is what `remote/logs/tail.py` calls a mark: it is kept, and sent back."""
    return (
        isinstance(at, dict)
        and set(at) == {"device", "inode", "offset", "skipping", "head", "last"}
        and all(isinstance(at[name], int) for name in ("device", "inode", "offset", "skipping"))
        and all(isinstance(at[name], str) and len(at[name]) <= 1024 for name in ("head", "last"))
    )
