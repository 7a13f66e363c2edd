"""Pieces on their way in: written where they belong as they come, and believed when their hashes are right."""

from __future__ import annotations

import hashlib
import os
from types import TracebackType
from typing import Optional, Type

from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.tree import bytes_of


class CorruptError(Exception):
    """What came is not what the push is about."""


class Intake:
    """One piece. Bytes are given to it in their order; memory does not grow with them."""

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
        """The next bytes. Raises CorruptError for wrong ones or too many, OSError where they can't be written."""
        while data:
            if not self._spans:
                raise CorruptError("more came than the piece has")
            part = data[: self._left]
            self._hash.update(part)
            self._write(part)
            data = data[len(part) :]
            self._left -= len(part)
            self.missing -= len(part)
            if not self._left:
                self._next()

    def end(self) -> None:
        """All of it should have come. Raises CorruptError where it has not, OSError where it can't be kept."""
        if self._spans:
            raise CorruptError("less came than the piece has")
        self._store.got(self.number)

    def close(self) -> None:
        """Let go of the file."""
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
            raise CorruptError("a block has another hash than it should")
        if self._spans:
            self._left = self._spans[0].length
            self._hash = hashlib.sha256()
            self._descriptor = self._store.open_to_write(self._spans[0].file)
