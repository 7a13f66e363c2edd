"""What is pushed, read piece by piece: files of this machine, or of a host that the others cannot reach."""

from __future__ import annotations

import base64
import itertools
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence

from flagscale_deploy.errors import InputError
from flagscale_deploy.push.members import CHUNK, Inbox, Member
from flagscale_deploy.push.schedule import SOURCE
from flagscale_deploy.remote.messages.push import PushReply, PushTree
from flagscale_deploy.remote.push.hashes import to_text
from flagscale_deploy.remote.push.source import Source
from flagscale_deploy.remote.push.tree import Piece, Span

READ_SECONDS = 60.0
TELL_SECONDS = 0.5


class Here:
    """They are sent through SSH, and nobody can call us. The hashes come into the inbox: {"digests"} or {"refused"}."""

    def __init__(self, path: str, inbox: Inbox, *, copy_links: bool, checksum: bool) -> None:
        """Raises InputError where they can't be read, or there are none."""
        self._inbox, self._checksum = inbox, checksum
        try:
            self._source = Source(path, "", copy_links)
        except OSError as error:
            where = os.fsdecode(error.filename or path)
            raise InputError.at(where, f"cannot be read: {error.strerror}", "give what you may read") from error
        if not self._source.tree["entries"]:
            raise InputError.at("SRC", f"there is nothing in {path}", "give a directory with files, or a file")

    @property
    def tree(self) -> PushTree:
        """Return what there is."""
        return self._source.tree

    def hash(self) -> None:
        """Begin to hash all files."""
        threading.Thread(target=self._hash, daemon=True).start()

    def read(self, piece: int) -> Iterator[bytes]:
        """The bytes of a piece, in chunks. Raises OSError, EOFError."""
        for span in chunks(self._source.pieces[piece]):
            yield self._source.read(*span)

    def _hash(self) -> None:
        done, told_at = 0, time.monotonic()

        def tell(count: int) -> None:
            nonlocal done, told_at
            done += count
            if time.monotonic() - told_at > TELL_SECONDS:
                told_at = time.monotonic()
                self._inbox.put((SOURCE, {"hashed": done}))

        try:
            digests = self._source.digests(self._checksum, tell)
        except (OSError, EOFError) as error:
            self._inbox.put((SOURCE, {"refused": str(error)}))
        else:
            self._inbox.put((SOURCE, {"digests": [to_text(each) for each in digests]}))


class There:
    """Files of a host that some others can't call: read through its SSH connection, a chunk at a time."""

    def __init__(self) -> None:
        self.member: Member | None = None
        self.pieces: Sequence[Piece] = ()
        self._answers: dict[int, queue.Queue[bytes]] = {}
        self._ids = itertools.count()

    def hear(self, message: PushReply) -> bool:
        """Take the answer to a question of ours; whether it was one."""
        waiting = self._answers.get(message.get("read", -1))
        if waiting is not None:
            waiting.put(base64.b64decode(message["data"]))
        return waiting is not None

    def read(self, piece: int) -> Iterator[bytes]:
        """The bytes of a piece, in chunks. Raises TimeoutError where they don't come."""
        assert self.member is not None, "it is read from when its program runs"
        for span in chunks(self.pieces[piece]):
            number = next(self._ids)
            self._answers[number] = queue.Queue()
            try:
                self.member.order({"read": number, "file": span.file, "offset": span.offset, "length": span.length})
                yield self._answers[number].get(timeout=READ_SECONDS)
            except queue.Empty:
                raise TimeoutError(f"nothing could be read there for {READ_SECONDS:g} s") from None
            finally:
                del self._answers[number]


def chunks(piece: Piece) -> Iterator[Span]:
    """A piece in parts that are sent at once."""
    for span in piece:
        for at in range(0, span.length, CHUNK):
            yield Span(span.file, span.offset + at, min(CHUNK, span.length - at))
