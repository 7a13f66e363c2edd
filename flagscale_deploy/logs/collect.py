"""Brings every log of a deployment to this disk: byte for byte, on from where an earlier collection ended."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.errors import HostError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs.receive import Coming, LimitError, Taken, broken
from flagscale_deploy.logs.store import Store, shown
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.paths import safe_name
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Tell, through_losses
from flagscale_deploy.transport.remote_program import Program

COLLECT_SECONDS = 3600.0
LOSSES = 5
"""How often the connection to a host may be lost in one collection."""
PATIENCE_SECONDS = 120.0
"""How long `logs -o` lets a connection take to come back."""
MAX_TOTAL = 64 << 30
"""Bytes that are taken from one host in one collection (`max_total`)."""


@dataclass(frozen=True)
class Wanted:
    """What of the logs is collected, and how much. Sizes in bytes.

    `since`: only files that were written to after this time (Unix seconds). `within`: in so many seconds before now,
    by the clock of each host. `max_size`: of a longer file so many bytes come, half from its beginning and half from
    its end. `max_total`: no more is taken from a host.
    """

    since: float | None = None
    within: float | None = None
    max_size: int | None = None
    max_total: int = MAX_TOTAL


@dataclass(frozen=True)
class Collected:
    """What came from a host: files (relative paths) with their sizes in bytes, and what is wrong with some of them.

    `cut`: how many bytes of a file were left out. `received`: how many bytes came this time. `older`: files left out by
    `since`. `limit`: the limit that ended the collection early, "" if none did.
    """

    host: str
    folder: Path
    files: tuple[tuple[str, int], ...]
    problems: tuple[str, ...] = ()
    cut: tuple[tuple[str, int], ...] = ()
    received: int = 0
    older: int = 0
    limit: str = ""

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


def silent(_host: str, _text: str) -> None:
    """Tells nobody."""


def collect_logs(
    fleet: Fleet,
    deployment: str,
    into: Path,
    hosts: Iterable[str] | None = None,
    *,
    wanted: Wanted | None = None,
    patience: float = 0.0,
    tell: Tell = silent,
) -> dict[str, Collected | HostError]:
    """Every log of a deployment into `<into>/<host>/`, all hosts at once, and hosts' clocks into `<into>/clocks.json`.

    Where files lie there already that are the beginnings of those on the host, only the rest is sent. A connection
    that is lost is made anew where it comes back within `patience` seconds, and the collection goes on; `tell` hears
    of it.
    """

    asked = wanted or Wanted()
    told: dict[str, clocks.Clock] = {}

    def work(host: Host) -> Collected:
        collection = _Collection(fleet, deployment, host, into / safe_name(host.name), asked, Taken(asked.max_total))
        try:
            return through_losses(
                fleet, host.name, collection.attempt,
                heard=lambda: collection.taken.bytes, patience=patience, losses=LOSSES, tell=tell,
            )  # fmt: skip
        finally:
            if collection.clock is not None:
                told[safe_name(host.name)] = collection.clock

    collected = fleet.map(work, hosts)
    with contextlib.suppress(OSError):  # a diagnosis says then that clocks are not known
        clocks.write(into, told)
    return collected


@dataclass
class _Collection:
    """The collection of one host's logs, in as many attempts as it takes."""

    fleet: Fleet
    deployment: str
    host: Host
    folder: Path
    wanted: Wanted
    taken: Taken
    deadline: Deadline = field(default_factory=lambda: Deadline(COLLECT_SECONDS))
    clock: clocks.Clock | None = None

    def attempt(self, connection: Connection) -> Collected:
        try:
            with Store(self.folder) as store:
                return self._attempt(connection, store)
        except OSError as error:
            raise self._disk_failed(error) from error

    def _attempt(self, connection: Connection, store: Store) -> Collected:
        args = {
            "deployment": self.deployment,
            "host": self.host.name,
            "have": store.have(),
            "since": self.wanted.since,
            "within": self.wanted.within,
            "max_size": self.wanted.max_size,
        }
        coming = Coming(self.host.name, store, self.taken)
        limit = ""
        with Program(
            connection, "archive", args, timeout=self.deadline.remaining, cancelled=self.fleet.cancelled
        ) as program:
            try:
                coming.take(program)
            except LimitError as reached:
                limit = str(reached)
                coming.stop()
            finally:
                coming.close()
                self.clock = coming.clock or self.clock
        if not (limit or coming.begun):
            raise RemoteError(self.host.name, "logs could not be read: the program that sends them ended early")
        if not (limit or coming.done):
            raise broken(self.host.name, "they end early")
        coming.problems += [f"{name}: what was here of it is not on the host any more, and is now {kept}"
                            for name, kept in store.forget_kept()]  # fmt: skip
        files = tuple((shown(name), size) for name, size in coming.files.items())
        cut = tuple((shown(name), size) for name, size in coming.cut.items())
        return Collected(
            self.host.name, self.folder, files, tuple(coming.problems), cut, self.taken.bytes, coming.older, limit
        )

    def _disk_failed(self, error: OSError) -> RemoteError:
        remedy = "look at the folder, or give another one (-o)"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space there and repeat: it goes on where it ended; --max-size and --since make it less"
        return RemoteError(self.host.name, f"logs cannot be written to {self.folder}: {error.strerror}", remedy)
