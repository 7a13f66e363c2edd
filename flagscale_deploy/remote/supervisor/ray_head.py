"""The head of a Ray cluster, as the supervisor of a worker's Ray node sees it.

A worker that loses its head leaves by itself, up to a minute later, and a head that was started anew knows none of the
workers of the one before. So neither a worker that ends once its head was away counts as a restart of its own, nor do
those that it had before it joined another head: each head has a session of its own.
"""

from __future__ import annotations

import re
import time
from typing import Callable, Optional

from flagscale_deploy.remote.supervisor.group import Group
from flagscale_deploy.remote.system import files, network

CONNECT_SECONDS = 1.0
LOOK_SECONDS = 2.0
"""A head needs longer than that to be back: Python alone takes a second."""
CMDLINE_BYTES = 4096
"""A raylet names its socket first, which lies in the folder of its session."""
_SESSION = re.compile(rb"session_[0-9][0-9_-]*")


class RayHead(Group):
    """What a worker waits for before it starts: the GCS on `host` takes connections at `address` (`IP:PORT`)."""

    def __init__(self, host: str, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        ip, _, port = address.rpartition(":")
        self._ip, self._port = ip.strip("[]"), int(port)
        self._host, self._address, self._clock = host, address, clock
        self._away_since: Optional[float] = None
        self._session = b""
        self._was_away = False
        self._looked_at = clock()

    def look(self) -> None:
        """Notice a head that goes away while the worker runs: it may be back before the worker leaves."""
        if not self._was_away and self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            self._was_away = bool(self.missing())

    @property
    def excuses_end(self) -> bool:
        """Return whether the head is away, or was since the worker joined it."""
        return self._was_away or bool(self.missing())

    def missing(self) -> str:
        """Return that the head is away, and for how long; "" while it takes connections."""
        if network.listens(self._ip, self._port, CONNECT_SECONDS):
            self._away_since = None
            return ""
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        seconds = (now - self._away_since) // 5 * 5
        return "waiting for %s (Ray's head at %s, away for %d s)" % (self._host, self._address, seconds)

    def is_another(self, raylet: int) -> bool:
        """Return whether the raylet (its pid) has joined another head than the last one did."""
        self._was_away = False
        before, session = self._session, session_of(raylet)
        self._session = session or before
        return bool(before and session and session != before)


def session_of(raylet: int) -> bytes:
    """Return the name of a raylet's session, which its head has made; b"" where its command line has none."""
    try:
        session = _SESSION.search(files.read_start("/proc/%d/cmdline" % raylet, CMDLINE_BYTES))
    except OSError:
        return b""
    return session.group() if session else b""
