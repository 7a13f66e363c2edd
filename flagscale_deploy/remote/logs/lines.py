"""Cut growing files into lines; they may hold anything, and lines may be very long."""

from __future__ import annotations

import os
import re
from typing import List

LONGEST = 64 << 10
CUT = " … [line cut at 64 KiB]"
BLOCK = 64 << 10
FURTHEST = 16 << 20
"""How far back the last lines are looked for."""

END = re.compile(rb"\r*\n|\r+(?=[^\r\n])")
"""The end of a line. Progress bars end theirs with a carriage return; one at the very end may be half of \\r\\n."""


class Cutter:
    """Cuts a stream of bytes into lines.

    A byte that is not UTF-8 becomes U+FFFD. Of a line longer than 64 KiB the beginning comes at once, with a mark.
    """

    def __init__(self, skipping: bool = False) -> None:
        self._begun = b""
        self.skipping = skipping
        """The line that has begun is already known by its first 64 KiB."""

    @property
    def pending(self) -> int:
        """Return how many bytes of an unfinished line have come."""
        return len(self._begun)

    def feed(self, data: bytes) -> List[str]:
        """Return the lines that these bytes complete."""
        *whole, self._begun = END.split(self._begun + data)
        lines = [line for part in whole for line in self._end(part)]
        if len(self._begun) > LONGEST:
            lines += [] if self.skipping else [_text(self._begun)]
            self._begun, self.skipping = b"", True
        return lines

    def rest(self) -> List[str]:
        """Return what came after the last line end, if anything did."""
        begun, self._begun = self._begun, b""
        return self._end(begun) if begun else []

    def _end(self, line: bytes) -> List[str]:
        skipping, self.skipping = self.skipping, False
        return [] if skipping else [_text(line)]


def start_of_last(descriptor: int, count: int) -> int:
    """Return the offset of the last `count` lines of a file, read from its end; at most 16 MiB before it."""
    size = os.fstat(descriptor).st_size
    at, needed = size, count
    if size and os.pread(descriptor, 1, size - 1) == b"\n":
        needed += 1
    while at > max(0, size - FURTHEST) and count:
        start = max(0, at - BLOCK)
        block = os.pread(descriptor, at - start, start)
        ends = block.count(b"\n")
        if ends >= needed:
            return start + _nth_last(block, needed) + 1
        needed -= ends
        at = start
    return at


def _nth_last(block: bytes, count: int) -> int:
    at = len(block)
    for _ in range(count):
        at = block.rindex(b"\n", 0, at)
    return at


def _text(line: bytes) -> str:
    text = line[:LONGEST].decode("utf-8", "replace").rstrip("\r")
    return text + CUT if len(line) > LONGEST else text
