"""What a host sends of its logs, taken as far as it makes sense: it may be anything, and may never end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flagscale_deploy.diagnosis.clocks import Clock, heard
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.logs.decompress import UNPACK
from flagscale_deploy.logs.store import Member, RefusedError, Store, refused, shown
from flagscale_deploy.remote.logs.sparse import BLOCK
from flagscale_deploy.transport.remote_program import Program

MAX_FILES = 100_000
MAX_PROBLEMS, SHOWN = 1000, 500
LARGEST = 1 << 50
"""A file cannot say that it is larger: holes cost nothing to send."""


class LimitError(Exception):
    """A limit was reached."""


@dataclass
class Taken:
    """How many bytes came, in one collection however often it is begun again."""

    limit: int
    bytes: int = 0

    def add(self, size: int) -> None:
        """Raises LimitError."""
        self.bytes += size
        if self.bytes > self.limit:
            said = "collecting ended there (--max-total, --max-size, --since)"
            raise LimitError(f"more than {self.limit:,} bytes: {said}")


def broken(host: str, how: str) -> RemoteError:
    """What came makes no sense."""
    return RemoteError(host, f"logs came broken: {how}", "collect them again: it goes on from here")


class Coming:
    """What comes in one attempt: files, one after the other, as `remote/programs/archive.py` sends them."""

    def __init__(self, host: str, store: Store, taken: Taken) -> None:
        self._host, self._store, self._taken = host, store, taken
        self.files: dict[bytes, int] = {}
        self.cut: dict[bytes, int] = {}
        self._seen = 0
        self._name = b""
        self._member: Member | None = None
        self._between = True
        self.older = 0
        self.problems: list[str] = []
        self.begun = self.done = False
        self.clock: Clock | None = None

    def take(self, program: Program) -> None:
        """Write what comes. Raises LimitError, RemoteError where it makes no sense, OSError where the disk fails."""
        for message in program.messages():
            if "archive" in message:
                self.begun, self.clock = True, heard(message)
            elif "file" in message and "problem" not in message:
                self._begin(message)
            elif "packed" in message:
                self._write(iter([self._unpacked(program, message)]))
            elif "data" in message:
                self._write(program.take(self._number(message, "data")))
            elif "zeros" in message or "cut" in message:
                self._leave_out(message)
            elif "end" in message:
                self._end(str(message.get("why", "")))
            elif "problem" in message:
                self._count_file()
                self._problem(_name(message), str(message["problem"]))
            elif "done" in message:
                self.older, self.done = self._number(message, "older"), True

    def stop(self) -> None:
        """What has come of the file that was coming is kept."""
        if self._member is not None:
            self._end("only its beginning is here")

    def close(self) -> None:
        """Let go of a file that did not come to its end."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def _begin(self, message: Mapping[str, Any]) -> None:
        if not self._between:
            raise self._broken("a file begins in another")
        self._between = False
        self._count_file()
        self._name, again = _name(message), message.get("again") is True
        at, size = self._number(message, "at"), self._number(message, "size")
        try:
            if self._name in self.files and not again:
                raise RefusedError("a second file of this name")
            if at > size:
                raise RefusedError("it begins behind its end")
            self._member = self._store.begin(self._name, at, size, again=again)
        except RefusedError as error:
            self._problem(self._name, f"{error}; left out")

    def _write(self, chunks: Iterator[bytes]) -> None:
        if self._between:
            raise self._broken("bytes of no file")
        for chunk in chunks:
            self._taken.add(len(chunk))
            self._put(chunk)

    def _unpacked(self, program: Program, message: Mapping[str, Any]) -> bytes:
        """A piece that comes compressed; never more than a piece can be, whatever it says and holds."""
        size, packed = self._number(message, "data"), self._number(message, "packed")
        if not 0 < size <= BLOCK or packed > size:
            raise self._broken("a packed piece is too large")
        unpack = UNPACK.get(str(message.get("by")))
        if unpack is None:
            raise self._broken("a piece is packed in an unknown way")
        try:
            return unpack(b"".join(program.take(packed)), size)
        except ValueError as error:
            raise self._broken(f"a packed piece cannot be opened: {error}") from error

    def _put(self, chunk: bytes) -> None:
        if self._member is not None:
            self._guarded(lambda member: member.write(chunk))

    def _leave_out(self, message: Mapping[str, Any]) -> None:
        name = "zeros" if "zeros" in message else "cut"
        count = self._number(message, name)
        if self._between:
            raise self._broken("bytes of no file")
        if self._member is not None:
            self._guarded(lambda member: member.zeros(count) if name == "zeros" else member.cut(count))

    def _end(self, why: str) -> None:
        member = self._member
        if member is not None:
            self._guarded(lambda member: self._finished(member))
        if why and member is not None:
            self._problem(self._name, why)
        self.close()
        self._between = True

    def _finished(self, member: Member) -> None:
        self.files[self._name] = member.finish()
        if member.cut_bytes:
            self.cut[self._name] = member.cut_bytes

    def _guarded(self, act: Callable[[Member], None]) -> None:
        """Do something with the file that comes, which may turn out to be none that can be had."""
        assert self._member is not None
        try:
            act(self._member)
        except (RefusedError, OSError) as error:
            about = refused(error) if isinstance(error, OSError) else error
            if not isinstance(about, RefusedError):
                raise
            self._problem(self._name, f"{about}; the rest of it is left out")
            self.close()

    def _problem(self, name: bytes, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{shown(name)[:SHOWN]}: {text[:SHOWN]}")
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("… and more of this kind")

    def _broken(self, how: str) -> RemoteError:
        return broken(self._host, how)

    def _count_file(self) -> None:
        self._seen += 1
        if self._seen > MAX_FILES:
            raise LimitError(f"more than {MAX_FILES:,} files: collecting ended there (--since leaves out old ones)")

    def _number(self, message: Mapping[str, Any], name: str) -> int:
        value = message.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
            raise self._broken(f"{name} is no size")
        return value


def _name(message: Mapping[str, Any]) -> bytes:
    """The name of a file, which may be any bytes."""
    try:
        return bytes.fromhex(message["bytes"]) if "bytes" in message else str(message.get("file", "")).encode()
    except (TypeError, ValueError):
        return b""
