"""What the operator asks of a program that runs: lines of JSON on its standard input."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Generic, Optional, TypeVar, cast

Request = TypeVar("Request")


class Requests(Generic[Request]):
    """The requests as they come, in pieces of any size. Bytes may follow one that says how many."""

    def __init__(self) -> None:
        self._input = cast(io.BufferedReader, sys.stdin.buffer)
        self._received = bytearray()
        self.received_at = time.monotonic()
        self.ended = False
        """Whether standard input has ended, which tells that nobody listens any more."""

    def receive(self) -> None:
        """Wait until something comes, or standard input ends."""
        try:
            data = self._input.read1(1 << 16)
        except OSError:
            data = b""
        self.received_at, self.ended = time.monotonic(), not data
        self._received += data

    def next(self) -> Optional[Request]:
        """Return the next request, None where not all of it has come."""
        end = self._received.find(b"\n")
        if end < 0:
            return None
        request: Request = json.loads(self._received[:end])
        del self._received[: end + 1]
        return request

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the bytes behind a request. Raises EOFError where standard input ends before."""
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        del self._received[:count]
        while count < len(buffer):
            more = self._input.readinto1(buffer[count:])
            self.received_at = time.monotonic()
            if not more:
                raise EOFError("standard input ended")
            count += more
