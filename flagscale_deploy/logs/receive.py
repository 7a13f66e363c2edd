"""Receive what a host sends of its logs, and check all of it: it may be malformed, and may never end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.diagnosis.clocks import Clock, parse_clock
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.logs.decompress import UNPACK
from flagscale_deploy.logs.store import IncomingFile, RefusedError, Store, as_refusal, display_name
from flagscale_deploy.remote.logs.sparse import BLOCK
from flagscale_deploy.remote.messages.logs import ArchiveReply
from flagscale_deploy.remote.messages.program import NoOrder
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import format_size
from flagscale_deploy.transport.remote_program import Program

MAX_FILES = MAX_FOLDERS = 100_000
MAX_NAMES = 16 << 20
"""Bytes of the names of all files together: they are kept in memory, and count for nothing on the host's disk."""
MAX_PROBLEMS, LONGEST_PROBLEM = 1000, 500
LARGEST = 1 << 50
"""The largest size that is believed."""
LARGEST_FILE = 1 << 40
"""The largest file that is stored: holes cost nothing to send, but time where a file is read."""


ENOUGH_BYTES, MESSAGE_BYTES = 16 << 10, 64


Size = Literal["data", "packed", "size", "at", "zeros", "cut", "older"]


class LimitError(Exception):
    """Raised when a limit of the collection is reached."""


@dataclass
class ByteLimit:
    """Counts the bytes received from a host, over all attempts of one collection, up to a limit."""

    limit: int
    bytes: int = 0
    folders: int = 0
    """Those that were made here."""

    def add_folders(self, count: int) -> None:
        """Count folders that were made: each takes a block of the disk. Raises LimitError for too many."""
        self.folders += count
        if self.folders > MAX_FOLDERS:
            raise LimitError(f"collecting stopped after {MAX_FOLDERS:,} folders; leave out old ones with --since")

    def add(self, size: int) -> None:
        """Count bytes. Raises LimitError where they exceed the limit."""
        self.bytes += size
        if self.bytes > self.limit:
            remedy = "raise --max-total, or collect less with --max-size or --since"
            raise LimitError(f"collecting stopped after {self.limit:,} bytes; {remedy}")


class Pace:
    """Gives a host up that is waited for `seconds` and sends less than ENOUGH_BYTES, however regularly they come.

    Each message counts for some bytes: an empty file has nothing else. What is done here meanwhile does not count, but
    all ends by `limit`.
    """

    def __init__(self, limit: Deadline, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._left, self._bytes, self._asked_at = seconds, 0, 0.0

    def ask(self, program: Program[ArchiveReply, NoOrder]) -> None:
        """Begin to wait for more."""
        self._asked_at = time.monotonic()
        program.allow(min(self._limit.remaining, max(0.0, self._left)))

    def note(self, count: int) -> None:
        """Note bytes that have come."""
        self._bytes += count
        self._left -= time.monotonic() - self._asked_at
        if self._bytes >= ENOUGH_BYTES:
            self._bytes, self._left = 0, self._seconds


def malformed(host: str, how: str) -> RemoteError:
    """Return the error for data that makes no sense."""
    return RemoteError(host, f"malformed log data: {how}", "collect again, which continues where this ended")


class Receiver:
    """Receives the files of one attempt, one after the other, as `remote/programs/archive.py` sends them."""

    def __init__(self, host: str, store: Store, received: ByteLimit, pace: Pace) -> None:
        self._host, self._store, self._received, self._pace = host, store, received, pace
        self.files: dict[bytes, int] = {}
        self.cut: dict[bytes, int] = {}
        self._seen = self._names = 0
        self._name = b""
        self._file: IncomingFile | None = None
        self._between_files = True
        self.older = 0
        self.problems: list[str] = []
        self.begun = self.done = False
        self.clock: Clock | None = None

    def receive(self, program: Program[ArchiveReply, NoOrder]) -> None:
        """Write what the program sends.

        Raises LimitError, RemoteError for malformed data, OSError where the disk fails.
        """
        self._pace.ask(program)
        for message in program.messages():
            self._pace.note(MESSAGE_BYTES)
            if "archive" in message:
                self.begun, self.clock = True, parse_clock(message)
            elif "file" in message and "problem" not in message:
                self._begin(message)
            elif "packed" in message:
                self._write([self._decompressed(program, message)])
            elif "data" in message:
                self._write(self._taken(program, self._number(message, "data")))
            elif "zeros" in message or "cut" in message:
                self._leave_out(message)
            elif "end" in message:
                self._end(str(message.get("why", "")))
            elif "problem" in message:
                self._count_file(_name(message))
                self._problem(_name(message), str(message["problem"]))
            elif "done" in message:
                self.older, self.done = self._number(message, "older"), True
            self._pace.ask(program)

    def stop(self) -> None:
        """Keep what was received of the current file."""
        if self._file is not None:
            self._end("only its beginning was received")

    def close(self) -> None:
        """Close a file that was not received to its end."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, message: ArchiveReply) -> None:
        if not self._between_files:
            raise self._malformed("a file begins inside another")
        self._between_files = False
        self._name, again = _name(message), message.get("again") is True
        self._count_file(self._name)
        at, size = self._number(message, "at"), self._number(message, "size")
        try:
            if self._name in self.files and not again:
                raise RefusedError("a second file has this name")
            if size > LARGEST_FILE:
                raise RefusedError(f"it is larger than {format_size(LARGEST_FILE)}")
            if at > size:
                raise RefusedError("it begins after its end")
            self._file = self._store.begin(self._name, at, size, again=again)
        except RefusedError as error:
            self._problem(self._name, f"{error}; left out")
        self._received.add_folders(self._store.take_made())

    def _taken(self, program: Program[ArchiveReply, NoOrder], count: int) -> Iterator[bytes]:
        self._pace.ask(program)
        for chunk in program.take(count):
            self._pace.note(len(chunk))
            yield chunk
            self._pace.ask(program)

    def _write(self, chunks: Iterable[bytes]) -> None:
        if self._between_files:
            raise self._malformed("data outside a file")
        for chunk in chunks:
            self._received.add(len(chunk))
            self._put(chunk)

    def _decompressed(self, program: Program[ArchiveReply, NoOrder], message: ArchiveReply) -> bytes:
        """Return a compressed piece, decompressed; never more than a piece can have, whatever it announces."""
        size, packed_size = self._number(message, "data"), self._number(message, "packed")
        if not 0 < size <= BLOCK or packed_size > size:
            raise self._malformed("a compressed piece is too large")
        unpack = UNPACK.get(str(message.get("by")))
        if unpack is None:
            raise self._malformed("a piece has an unknown compression")
        try:
            return unpack(b"".join(self._taken(program, packed_size)), size)
        except ValueError as error:
            raise self._malformed(f"a piece cannot be decompressed: {error}") from error

    def _put(self, chunk: bytes) -> None:
        if self._file is not None:
            self._with_file(lambda file: file.write(chunk))

    def _leave_out(self, message: ArchiveReply) -> None:
        name: Size = "zeros" if "zeros" in message else "cut"
        count = self._number(message, name)
        if self._between_files:
            raise self._malformed("data outside a file")
        if self._file is not None:
            self._with_file(lambda file: file.zeros(count) if name == "zeros" else file.cut(count))

    def _end(self, why: str) -> None:
        file = self._file
        if file is not None:
            self._with_file(self._finish)
        if why and file is not None:
            self._problem(self._name, why)
        self.close()
        self._between_files = True

    def _finish(self, file: IncomingFile) -> None:
        self.files[self._name] = file.finish()
        if file.cut_bytes:
            self.cut[self._name] = file.cut_bytes

    def _with_file(self, act: Callable[[IncomingFile], None]) -> None:
        """Call `act` with the current file; skip the rest of the file where it cannot be written."""
        assert self._file is not None
        try:
            act(self._file)
        except (RefusedError, OSError) as error:
            refusal = as_refusal(error) if isinstance(error, OSError) else error
            if not isinstance(refusal, RefusedError):
                raise
            self._problem(self._name, f"{refusal}; the rest of it is left out")
            self.close()

    def _problem(self, name: bytes, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{cut(display_name(name), LONGEST_PROBLEM)}: {cut(text, LONGEST_PROBLEM)}")
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("… and more problems")

    def _malformed(self, how: str) -> RemoteError:
        return malformed(self._host, how)

    def _count_file(self, name: bytes) -> None:
        self._seen += 1
        self._names += len(name)
        if self._seen > MAX_FILES or self._names > MAX_NAMES:
            limit = f"{MAX_FILES:,} files" if self._seen > MAX_FILES else f"{format_size(MAX_NAMES)} of their names"
            raise LimitError(f"collecting stopped after {limit}; leave out old ones with --since")

    def _number(self, message: ArchiveReply, name: Size) -> int:
        value: object = message.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
            raise self._malformed(f"{name} is not a size")
        return value


def _name(message: ArchiveReply) -> bytes:
    """Return the name of a file, which may be any bytes."""
    try:
        return bytes.fromhex(message["bytes"]) if "bytes" in message else str(message.get("file", "")).encode()
    except (TypeError, ValueError):
        return b""
