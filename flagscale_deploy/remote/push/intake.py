"""Receive pieces: write their bytes to disk as they come, and accept them if their hashes are right."""

from __future__ import annotations

import hashlib
import os
from types import TracebackType
from typing import Optional, Type

from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.tree import bytes_of


class CorruptError(Exception):
    """The bytes received are not those of the piece."""


class Intake:
    """One piece that is received. It takes bytes in their order, and does not keep them in memory."""

    def __init__(self, store: Store, number: int) -> None:
        self._store, self.number = store, number
        self._spans = list(store.pieces[number])
        self._left = self._spans[0].length
        self._hash = hashlib.sha256()
        self._descriptor = store.open_to_write(self._spans[0].file)
        self.missing = bytes_of(self._spans)

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, _kind: Optional[Type[BaseException]], _e: object, _tb: Optional[TracebackType]) -> None:
        self.close()

    def take(self, data: memoryview) -> None:
        """Write the next bytes. Raises CorruptError for wrong ones or too many, OSError if they cannot be written."""
        while data:
            if not self._spans:
                raise CorruptError("the piece has more bytes than it should")
            part = data[: self._left]
            self._hash.update(part)
            self._write(part)
            data = data[len(part) :]
            self._left -= len(part)
            self.missing -= len(part)
            if not self._left:
                self._next()

    def end(self) -> None:
        """Accept the piece. Raises CorruptError if bytes are missing, OSError if it cannot be stored."""
        if self._spans:
            raise CorruptError("the piece has fewer bytes than it should")
        self._store.mark_received(self.number)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, part: memoryview) -> None:
        span = self._spans[0]
        offset = span.offset + span.length - self._left
        while part and self._descriptor >= 0:
            count = os.pwrite(self._descriptor, part, offset)
            part, offset = part[count:], offset + count

    def _next(self) -> None:
        span = self._spans.pop(0)
        self.close()
        if self._hash.digest() != self._store.digest(span.file, span.offset):
            raise CorruptError("a block has the wrong hash")
        if self._spans:
            self._left = self._spans[0].length
            self._hash = hashlib.sha256()
            self._descriptor = self._store.open_to_write(self._spans[0].file)
