"""Copy every log of a deployment to this disk, continuing where an earlier collection ended."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.errors import HostError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs.receive import ByteLimit, LimitError, Pace, Receiver, malformed
from flagscale_deploy.logs.redacted_store import RedactedStore
from flagscale_deploy.logs.store import Store, display_name
from flagscale_deploy.remote.messages.logs import ARCHIVE, ArchiveArguments
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.paths import safe_name
from flagscale_deploy.transport.base import Connection, LateError
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Bounds, Tell, through_losses
from flagscale_deploy.transport.remote_program import Program

COLLECT_SECONDS = 3600.0
STALL_SECONDS, HASHED_BYTES = 120.0, 32 << 20
"""How long a host may send next to nothing of its logs; and how much it hashes a second, of copies that are here."""
LOSSES = 5
"""How often the connection to a host may be lost in one collection."""
PATIENCE_SECONDS = 120.0
"""How long `logs -o` waits for a lost connection to come back."""
MAX_TOTAL = 64 << 30
"""How many bytes are taken from one host in one collection (`max_total`)."""


@dataclass(frozen=True)
class FileSelection:
    """Which log files to collect, and how much of them. Sizes in bytes.

    Only files written to after `since` (Unix seconds), or `within` so many seconds before now by each host's clock. Of
    a file longer than `max_size`, half of that size is taken from its beginning and half from its end. At most
    `max_total` is taken from a host, and for at most `seconds`. With a `redactor`, no secret comes into the folder at
    any time; files that are there already are not continued then.
    """

    since: float | None = None
    within: float | None = None
    max_size: int | None = None
    max_total: int = MAX_TOTAL
    seconds: float = COLLECT_SECONDS
    redactor: Redactor | None = None


@dataclass(frozen=True)
class Collected:
    """The logs of a host: files (relative paths) with their sizes in bytes, and problems of single files.

    `cut`: how many bytes of a file were left out. `received`: bytes received this time. `older`: number of files left
    out because of `since`. `limit`: the limit that ended the collection early, "" if none did.
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
        """Return the size of all files together."""
        return sum(size for _, size in self.files)


def silent(_host: str, _text: str) -> None:
    """Ignore what happens to a connection."""


def collect_logs(
    fleet: Fleet,
    deployment: str,
    into: Path,
    hosts: Iterable[str] | None = None,
    *,
    selection: FileSelection = FileSelection(),
    patience: float = 0.0,
    tell: Tell = silent,
) -> dict[str, Collected | HostError]:
    """Copy every log of a deployment into `<into>/<host>/`, and the hosts' clocks into `<into>/clocks.json`.

    Of files whose beginning is there already, only the rest is sent. The collection survives a lost connection that
    comes back within `patience` seconds; `tell` is called for both.
    """
    host_clocks: dict[str, clocks.Clock] = {}

    def work(host: Host) -> Collected:
        limit = ByteLimit(selection.max_total)
        folder, deadline = into / safe_name(host.name), Deadline(selection.seconds)
        collection = _Collection(fleet, deployment, host, folder, selection, limit, deadline)
        try:
            return through_losses(
                fleet, host.name, collection.attempt,
                heard=lambda: collection.received.bytes, patience=patience, bounds=Bounds(losses=LOSSES), tell=tell,
            )  # fmt: skip
        finally:
            if collection.clock is not None:
                host_clocks[safe_name(host.name)] = collection.clock

    collected = fleet.map(work, hosts)
    with contextlib.suppress(OSError):  # a diagnosis notes that clocks are unknown then
        clocks.write(into, host_clocks)
    return collected


@dataclass
class _Collection:
    """The collection of one host's logs, which may take several attempts."""

    fleet: Fleet
    deployment: str
    host: Host
    folder: Path
    selection: FileSelection
    received: ByteLimit
    deadline: Deadline
    clock: clocks.Clock | None = None

    def attempt(self, connection: Connection) -> Collected:
        try:
            with self._store() as store:
                return self._attempt(connection, store)
        except OSError as error:
            raise self._disk_failed(error) from error

    def _store(self) -> Store:
        redactor = self.selection.redactor
        return Store(self.folder) if redactor is None else RedactedStore(self.folder, redactor, self.deadline)

    def _attempt(self, connection: Connection, store: Store) -> Collected:
        args: ArchiveArguments = {
            "deployment": self.deployment,
            "host": self.host.name,
            "have": store.have(),
            "since": self.selection.since,
            "within": self.selection.within,
            "max_size": self.selection.max_size,
        }
        stall = STALL_SECONDS + sum(size for size, _ in args["have"].values()) / HASHED_BYTES
        receiver = Receiver(self.host.name, store, self.received, Pace(self.deadline, stall))
        limit = ""
        seconds = self.deadline.remaining
        with Program(connection, ARCHIVE, args, timeout=seconds, cancelled=self.fleet.cancelled) as program:
            try:
                receiver.receive(program)
            except LimitError as reached:
                limit = str(reached)
                receiver.stop()
            except LateError as error:
                if self.deadline.expired:
                    raise
                raise self._stalled(stall) from error
            finally:
                receiver.close()
                self.clock = receiver.clock or self.clock
        if not (limit or receiver.begun):
            raise RemoteError(self.host.name, "logs could not be read: the program that sends them ended early")
        if not (limit or receiver.done):
            raise malformed(self.host.name, "they end early")
        for name, kept in store.forget_kept():
            receiver.problems.append(f"{name}: an earlier copy is not on the host any more; it is now {kept}")
        return Collected(
            host=self.host.name,
            folder=self.folder,
            files=tuple((display_name(name), size) for name, size in receiver.files.items()),
            problems=tuple(receiver.problems),
            cut=tuple((display_name(name), size) for name, size in receiver.cut.items()),
            received=self.received.bytes,
            older=receiver.older,
            limit=limit,
        )

    def _stalled(self, seconds: float) -> RemoteError:
        problem = f"next to nothing of its logs came within {seconds:.0f} s"
        return RemoteError(
            self.host.name, problem, "look at its load and disks; repeat, which continues where it ended"
        )

    def _disk_failed(self, error: OSError) -> RemoteError:
        remedy = "check the folder, or give another one with -o"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space and repeat, which continues where it ended; --max-size and --since collect less"
        return RemoteError(self.host.name, f"logs cannot be written to {self.folder}: {error.strerror}", remedy)
