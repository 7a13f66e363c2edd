"""Measure how names are resolved on a host: its own, and one outside.

Ray asks for `metadata.google.internal` when it starts (measured with 2.60): a resolver that never answers costs it 10 s
a query, 23 s in all. Such a lookup can't be cancelled, so it is done beside the rest and left to itself.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote.system.background import Background

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedNames

OUTSIDE = "metadata.google.internal"
PATIENCE = 1.0
"""A resolver that answers at all does so within this; resolv.conf(5) gives a server 5 s before it asks again."""
LONGEST = 2.0

Lookup = Callable[[str], List[str]]


def addresses(name: str) -> List[str]:
    """Return what a name resolves to, in the resolver's order; empty where it does not."""
    try:
        # As bytes: a text goes through the idna codec, whose import takes longer than the lookup.
        entries = socket.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class Lookups:
    """Lookups that have begun."""

    def __init__(self, hostname: str, lookup: Lookup = addresses) -> None:
        self._began = time.monotonic()
        self._own = Background(lookup, hostname)
        self._outside = Background(self._timed, lookup)

    def result(self) -> ProbedNames:
        """Return what was found.

        Waits until PATIENCE has passed since the beginning; later than that it takes what is there.
        """
        own: List[str] = []
        with contextlib.suppress(TimeoutError):
            own = self._own.result(self._left())
        try:
            seconds = self._outside.result(self._left())
        except TimeoutError:
            seconds = max(PATIENCE, time.monotonic() - self._began)
        return {"hostname_addresses": own, "resolver_seconds": round(min(seconds, LONGEST), 3)}

    def _left(self) -> float:
        return max(0.0, self._began + PATIENCE - time.monotonic())

    def _timed(self, lookup: Lookup) -> float:
        lookup(OUTSIDE)
        return time.monotonic() - self._began
