"""Compression where it pays: where the link takes longer over a piece than zlib does. On hosts."""

from __future__ import annotations

import time
from typing import Callable, Optional

try:
    import zlib
except ImportError:  # a Python that was built without it sends all as it is
    zlib = None  # type: ignore[assignment]

SETTLED = 8 << 20
"""Bytes that pipes, the SSH server and TCP take at once, however slow the link is: they tell nothing of it."""
LEVEL = 1
"""370 MB/s on a core, and a ninth of vLLM's log lines are left (measured); a better level is slower than links are."""
WORTH = 0.7
"""The part that has to be left at most; what is compressed already is sent as it is from then on."""


class Squeeze:
    """Decides piece by piece, from how long plain pieces took to be written: it starts plain, and once it compresses it
    goes on, for its own small pieces say nothing of the link any more. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._plain, self._waited = 0, 0.0
        self._on: Optional[bool] = None if zlib is not None else False

    def wrote(self, size: int, seconds: float) -> None:
        """A plain piece was written."""
        self._plain += size
        if self._plain > SETTLED:
            self._waited = seconds / size if not self._waited else 0.8 * self._waited + 0.2 * seconds / size

    def packed(self, content: bytes) -> Optional[bytes]:
        """The piece in zlib's form, or None where it is better sent as it is."""
        if self._on is False or (self._on is None and self._plain <= SETTLED) or not content:
            return None
        began = self._clock()
        found = zlib.compress(content, LEVEL)
        took = (self._clock() - began) / len(content)
        if len(found) > WORTH * len(content):
            self._on = False
            return None
        if self._on is None and took >= self._waited:
            self._plain = 0  # the link is quicker; look again when as much has gone by
            return None
        self._on = True
        return found
