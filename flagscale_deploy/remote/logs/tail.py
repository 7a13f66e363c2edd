"""Follow a log file through its rotations, from a place in it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Iterator, List, NamedTuple, Optional, Sequence

from flagscale_deploy.remote.logs.lines import Cutter
from flagscale_deploy.remote.logs.open_files import Key

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.logs import LogMark, LogPlace

READ = 256 << 10
HEAD, LAST = 256, 1024
"""How much of a file's beginning, and of what is before a place in it, tells that it is still the same."""


class Mark(NamedTuple):
    """A place in a file: its bytes up to `offset` have been said (`skipping`: also the rest of the line after it).

    `head` is what the file begins with, `last` a digest of what is before the place: a file that was truncated and
    written again, or was given the number of one that is gone, has others.
    """

    device: int
    inode: int
    offset: int
    skipping: bool
    head: bytes
    last: str

    @property
    def key(self) -> Key:
        """Return device and inode."""
        return self.device, self.inode

    def message(self) -> LogMark:
        """Return it as it travels."""
        return {
            "device": self.device,
            "inode": self.inode,
            "offset": self.offset,
            "skipping": self.skipping,
            "head": self.head.hex(),
            "last": self.last,
        }

    def is_in(self, descriptor: int) -> bool:
        """Return whether the file has this place."""
        size = os.fstat(descriptor).st_size
        return size >= self.offset and self.begins(descriptor) and _last(descriptor, self.offset) == self.last

    def begins(self, descriptor: int) -> bool:
        """Return whether the file begins as this one does, as far as it goes."""
        beginning = os.pread(descriptor, len(self.head), 0)
        return self.head.startswith(beginning)


class Place(NamedTuple):
    """Where a file was left."""

    name: str
    mark: Mark

    @classmethod
    def parse(cls, place: LogPlace) -> Place:
        """Return it from what the operator kept."""
        at = place["at"]
        head = bytes.fromhex(at["head"])
        return cls(place["file"], Mark(at["device"], at["inode"], at["offset"], at["skipping"], head, at["last"]))


class Tail:
    """A file, followed by itself and not by its name: what is written to it after it was rotated away is its own."""

    def __init__(self, name: str, descriptor: int, offset: int, skipping: bool = False) -> None:
        self.name = name
        self._descriptor, self._offset = descriptor, offset
        self._cutter = Cutter(skipping)
        self._head = os.pread(descriptor, min(HEAD, offset), 0)
        self._recent = _before(descriptor, offset)
        self.mark = self._place()
        self.truncated: Optional[Mark] = None
        """Where it was when it was truncated; who has read it sets it back."""

    def new(self) -> Iterator[List[str]]:
        """Return the lines added since the last time. A file that was truncated is read from its beginning."""
        size = os.fstat(self._descriptor).st_size
        if size < self._offset or (size > self._offset and not self.mark.begins(self._descriptor)):
            self.truncated = self.mark
            self._offset, self._cutter, self._head, self._recent = 0, Cutter(), b"", b""
            self.mark = self._place()
        while True:
            data = os.pread(self._descriptor, READ, self._offset)
            self._offset += len(data)
            lines = self._cutter.feed(data)
            self._head = (self._head + data[:HEAD])[:HEAD]
            self._recent = (self._recent + data)[-(LAST + self._cutter.pending) :]
            if lines:
                self.mark = self._place()
                yield lines
            if not data:
                return

    def rest(self) -> List[str]:
        """Return the last line, if it has no end."""
        return self._cutter.rest()

    @property
    def removed(self) -> bool:
        """Return whether the file was removed."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _place(self) -> Mark:
        """By what was read, and not by what the file holds now: it may have been truncated since."""
        status = os.fstat(self._descriptor)
        pending = self._cutter.pending
        at = self._offset - pending
        last = self._recent[: len(self._recent) - pending][-LAST:]
        return Mark(status.st_dev, status.st_ino, at, self._cutter.skipping, self._head[:at], _digest(last))


class Held:
    """A new file with the name of a rotated one.

    `copytruncate` fills it with what another one holds, and has been sent of that, before it truncates the other.
    Nothing of it is sent until it is known to be something else, or the rest of the other.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name, self._descriptor = name, descriptor

    def judged(self, sources: Sequence[Tail], left: Sequence[Place]) -> Optional[Mark]:
        """Return the place to follow it from; None while it may be a copy of a file that goes on."""
        size = os.fstat(self._descriptor).st_size
        for place in reversed(left):
            if place.mark.offset and place.mark.is_in(self._descriptor):
                return place.mark
            if 0 < size < place.mark.offset and place.mark.begins(self._descriptor):
                return place.mark._replace(offset=size)  # the other had been read further before it was truncated
        if not size or any(source.mark.offset and source.mark.begins(self._descriptor) for source in sources):
            return None
        return BEGINNING

    def tail(self, place: Mark) -> Tail:
        """Follow it from there."""
        return Tail(self.name, self._descriptor, place.offset, place.skipping)


BEGINNING = Mark(0, 0, 0, False, b"", "")


def _last(descriptor: int, offset: int) -> str:
    return _digest(_before(descriptor, offset))


def _before(descriptor: int, offset: int) -> bytes:
    """Return what stands before a place, LAST bytes at most."""
    start = max(0, offset - LAST)
    return os.pread(descriptor, offset - start, start)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
