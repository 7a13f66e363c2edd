"""Read what is pushed piece by piece: files of this machine, or of a host that others cannot connect to."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence

from flagscale_deploy.errors import InputError
from flagscale_deploy.push.arguments import PushOptions
from flagscale_deploy.push.members import CHUNK, Inbox, Member
from flagscale_deploy.push.schedule import SOURCE
from flagscale_deploy.remote.messages.push import PushReply, PushTree
from flagscale_deploy.remote.push.hashes import to_text
from flagscale_deploy.remote.push.source import Source
from flagscale_deploy.remote.push.tree import Piece, Span
from flagscale_deploy.remote.push.validate import checked_tree

READ_SECONDS = 60.0
REPORT_SECONDS = 0.5


class LocalSource:
    """Files of this machine, which go through SSH. Their hashes arrive in the inbox, as `digests` or `refused`."""

    def __init__(self, path: str, inbox: Inbox, options: PushOptions) -> None:
        """Scan the files. Raises InputError if they cannot be read, or there are none."""
        self._inbox, self._checksum = inbox, options.checksum
        try:
            self._source = Source(path, "", options.copy_links)
            self._tree = checked_tree(self._source.tree)
        except ValueError as error:
            raise InputError.at("SRC", f"{path} cannot be pushed: {error}", "push a part of it") from error
        except OSError as error:
            where = os.fsdecode(error.filename or path)
            raise InputError.at(where, f"cannot be read: {error.strerror}", "choose files that you may read") from error
        if not self._tree["entries"]:
            raise InputError.at("SRC", f"there is nothing in {path}", "give a directory with files, or a file")

    @property
    def tree(self) -> PushTree:
        """Return what there is."""
        return self._tree

    def hash(self) -> None:
        """Start to hash all files."""
        threading.Thread(target=self._hash, daemon=True).start()

    def read(self, piece: int) -> Iterator[bytes]:
        """Yield the bytes of a piece, in chunks. Raises OSError, EOFError."""
        for span in chunks(self._source.pieces[piece]):
            yield self._source.read(*span)

    def _hash(self) -> None:
        hashed, reported_at = 0, time.monotonic()

        def report(count: int) -> None:
            nonlocal hashed, reported_at
            hashed += count
            if time.monotonic() - reported_at > REPORT_SECONDS:
                reported_at = time.monotonic()
                self._inbox.put((SOURCE, {"hashed": hashed}))

        try:
            digests = self._source.digests(self._checksum, report)
        except (OSError, EOFError) as error:
            self._inbox.put((SOURCE, {"refused": str(error)}))
        else:
            self._inbox.put((SOURCE, {"digests": [to_text(digest) for digest in digests]}))


class RemoteSource:
    """Files of a host that some others cannot connect to: read through its SSH connection, a chunk at a time."""

    def __init__(self) -> None:
        self.member: Member | None = None
        self.pieces: Sequence[Piece] = ()
        self._replies: dict[int, queue.Queue[bytes]] = {}
        self._ids = itertools.count()

    def take_reply(self, message: PushReply) -> bool:
        """Take the reply to an order `read`; return whether it was one."""
        waiting = self._replies.get(message.get("read", -1))
        if waiting is not None:
            with contextlib.suppress(queue.Full, ValueError):  # it was answered before, or in no base64
                waiting.put_nowait(base64.b64decode(message.get("data", "")))
        return waiting is not None

    def read(self, piece: int) -> Iterator[bytes]:
        """Yield the bytes of a piece, in chunks. Raises OSError, EOFError if they do not come."""
        assert self.member is not None, "the source's program runs before it is read"
        for span in chunks(self.pieces[piece]):
            number = next(self._ids)
            self._replies[number] = queue.Queue(1)
            try:
                self.member.order({"read": number, "file": span.file, "offset": span.offset, "length": span.length})
                data = self._replies[number].get(timeout=READ_SECONDS)
            except queue.Empty:
                raise TimeoutError(f"the source sent nothing for {READ_SECONDS:g} s") from None
            finally:
                del self._replies[number]
            if len(data) != span.length:
                raise EOFError(f"the source sent {len(data)} B instead of {span.length} B")
            yield data


def chunks(piece: Piece) -> Iterator[Span]:
    """Yield the parts of a piece that are sent at once."""
    for span in piece:
        for at in range(0, span.length, CHUNK):
            yield Span(span.file, span.offset + at, min(CHUNK, span.length - at))
