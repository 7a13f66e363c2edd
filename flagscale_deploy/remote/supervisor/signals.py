"""Wait for signals and for the end of children, without missing one in between."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores."""


class Signals:
    """Once made, SIGTERM, SIGINT and SIGHUP do not end this process: they are noted, and end a wait.

    The end of a child ends a wait as well.
    """

    def __init__(self) -> None:
        self.ending = False
        """Whether one of these signals has come."""
        self._wakeups, wakeup = os.pipe()
        for descriptor in (self._wakeups, wakeup):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.take()

    def take(self) -> None:
        """Note these signals from now on."""
        for number in ENDING:
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def let_go(self) -> None:
        """Let all signals do from now on what they do to any program; one that has come before is noted."""
        for number in (*ENDING, signal.SIGCHLD, *IGNORED):
            signal.signal(number, signal.SIG_DFL)

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes, or has come since the last wait, for so many seconds at most."""
        select.select([self._wakeups], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeups, 4096):
                pass

    def _end(self, *_: Any) -> None:
        self.ending = True
