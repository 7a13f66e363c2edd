"""Signals to a program that waits for its children, without a moment in which one could be missed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """From its making on, SIGTERM, SIGINT and SIGHUP end nothing: they are noted, and wake who waits, as the end of a
    child does."""

    def __init__(self) -> None:
        self.ending = False
        """Whether we were asked to end."""
        self._woken, awake = os.pipe()
        for end in (self._woken, awake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wait(self, seconds: float) -> None:
        """Until a signal comes or has come since the last wait, for so many seconds at most."""
        select.select([self._woken], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass

    def _end(self, *_: Any) -> None:
        self.ending = True
