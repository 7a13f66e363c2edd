"""Read the operator's orders to a running program: lines of JSON on its standard input."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Generic, Optional, TypeVar, cast

Order = TypeVar("Order")
LONGEST_ORDER = 64 << 20
"""Bytes of a line; the tree of a push with 100,000 files has 10 MiB."""


class OrderReader(Generic[Order]):
    """The orders as they come, in pieces of any size. Bytes may follow an order that announces them."""

    def __init__(self) -> None:
        self._input = cast(io.BufferedReader, sys.stdin.buffer)
        self._received = bytearray()
        self.received_at = time.monotonic()
        self.ended = False
        """Whether standard input has ended: nobody reads the replies any more."""

    def receive(self) -> None:
        """Wait until something comes, or standard input ends."""
        try:
            data = self._input.read1(1 << 16)
        except OSError:
            data = b""
        self.received_at, self.ended = time.monotonic(), not data
        self._received += data

    def next(self) -> Optional[Order]:
        """Return the next order, None if it is not complete. Raises ValueError where it is too long, or no JSON."""
        end = self._received.find(b"\n")
        if end > LONGEST_ORDER or (end < 0 and len(self._received) > LONGEST_ORDER):
            raise ValueError("an order of more than %d MiB" % (LONGEST_ORDER >> 20))
        if end < 0:
            return None
        order: Order = json.loads(self._received[:end])
        del self._received[: end + 1]
        return order

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the bytes behind an order. Raises EOFError if standard input ends before."""
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        del self._received[:count]
        while count < len(buffer):
            more = self._input.readinto1(buffer[count:])
            self.received_at = time.monotonic()
            if not more:
                raise EOFError("standard input ended")
            count += more
