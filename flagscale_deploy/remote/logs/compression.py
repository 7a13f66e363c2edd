"""Compress where it pays: where the link takes longer over a piece than compressing does."""

from __future__ import annotations

import time
import zlib
from typing import Callable, NamedTuple, Optional

from flagscale_deploy.remote.logs import zstd

SETTLED = 8 << 20
"""Bytes that pipes, the SSH server and TCP take at once, however slow the link is: they tell nothing of it."""
LEVEL = 1
"""zlib's; a better level is slower than links are."""
WORTH = 0.7
"""The part that has to be left at most; what is compressed already is sent as it is from then on."""


class Packed(NamedTuple):
    """A piece that was compressed; `by` is `zstd` or `zlib`."""

    by: str
    content: bytes


class Packer(NamedTuple):
    """What compresses."""

    name: str
    compress: Callable[[bytes], bytes]


def packer() -> Packer:
    """Return the quickest that this host has: of log lines, on one core, zstd packs 840 MB/s, zlib 270 (measured)."""
    compress = zstd.compressor()
    return (
        Packer("zlib", lambda content: zlib.compress(content, LEVEL)) if compress is None else Packer("zstd", compress)
    )


class Compressor:
    """Decides piece by piece whether to compress, from how long plain pieces took to be written.

    It starts plain, and once it compresses it goes on, for its own small pieces tell nothing of the link any more.
    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._packer: Optional[Packer] = None
        self._plain, self._waited = 0, 0.0
        self._on: Optional[bool] = None

    def note_plain(self, size: int, seconds: float) -> None:
        """Note that a plain piece was written, in so many seconds."""
        self._plain += size
        if self._plain > SETTLED:
            self._waited = seconds / size if not self._waited else 0.8 * self._waited + 0.2 * seconds / size

    def compress(self, content: bytes) -> Optional[Packed]:
        """Return the piece compressed, or None where it is better sent as it is."""
        if self._on is False or (self._on is None and self._plain <= SETTLED) or not content:
            return None
        self._packer = self._packer or packer()
        began = self._clock()
        try:
            compressed = self._packer.compress(content)
        except ValueError:
            compressed = content
        took = (self._clock() - began) / len(content)
        if len(compressed) > WORTH * len(content):
            self._on = False
            return None
        if self._on is None and took >= self._waited:
            self._plain = 0  # the link is quicker; look again when as much has gone by
            return None
        self._on = True
        return Packed(self._packer.name, compressed)
