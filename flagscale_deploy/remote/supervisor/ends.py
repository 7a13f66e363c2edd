"""How a run of a server ends: by itself, or by its supervisor, since a watcher found a problem."""

from __future__ import annotations

import signal
from typing import NamedTuple, Protocol

from flagscale_deploy.remote.supervisor.health import Lifetime


class Watcher(Protocol):
    """Looks at a running server beside its supervisor; `problem` is called twice a second and must not block."""

    def start(self, lifetime: Lifetime) -> None:
        """Begin to look at a new run of the server, which may not be healthy yet."""

    def problem(self) -> str:
        """Return why the server has to be ended and restarted, as `hung 10 min: …`; "" while all is well."""

    def end(self) -> None:
        """Stop looking: this run is over."""


class End(NamedTuple):
    """The end of one run of a server. `status` is its exit status, negative for the signal that ended it."""

    status: int
    cause: str = ""
    """The problem for which the supervisor ended it; "" where it ended by itself."""

    @property
    def text(self) -> str:
        """Return what ended it."""
        return self.cause or describe_exit(self.status)


def describe_exit(status: int) -> str:
    """Return an exit status as text."""
    if status >= 0:
        return "ended with exit status %d" % status
    try:
        return "was ended by %s" % signal.Signals(-status).name
    except ValueError:
        return "was ended by signal %d" % -status


def duration(seconds: float) -> str:
    """Return a duration as text."""
    return "%.0f s" % seconds if seconds < 120 else "%.0f min" % (seconds / 60)


def delay(number: int, first: float, factor: float, ceiling: float) -> float:
    """Return the seconds before the nth restart in a row."""
    try:
        return min(ceiling, first * factor ** (number - 1))
    except OverflowError:
        return ceiling
