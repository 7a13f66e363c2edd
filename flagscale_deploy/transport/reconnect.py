"""Repeat work whose connection was lost, on a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flagscale_deploy.errors import InterruptedByUser, UnreachableError
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet

T = TypeVar("T")
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between one try and the next; the last one is that of all later ones."""

Tell = Callable[[str, str], None]
"""Takes a host, and what happened to its connection."""


@dataclass(frozen=True)
class Bounds:
    """How often a connection may be lost (None: without end), and whether the work is over meanwhile."""

    losses: int | None = None
    over: Callable[[], bool] = lambda: False


def through_losses(
    fleet: Fleet,
    host: str,
    work: Callable[[Connection], T],
    *,
    heard: Callable[[], object],
    patience: float,
    tell: Tell,
    bounds: Bounds = Bounds(),
) -> T:
    """Do `work` on a connection to a host, and again on a fresh one each time that it was lost.

    `work` continues where it was; `heard` returns something else when it has come further. For `patience` seconds at
    most there may be no connection, or none on which it comes further; `bounds` says how often one may be lost.
    Raises UnreachableError past these, every other error at once, and InterruptedByUser when the fleet is cancelled.
    """
    connection, lost, waiting = fleet.connection(host), 0, None
    while True:
        before = heard()
        try:
            return work(connection)
        except UnreachableError as error:
            if not patience:
                raise
            lost += 1
            if waiting is None or heard() != before:
                waiting = _Waiting(fleet, host, patience, bounds.over)
            if bounds.losses is not None and lost > bounds.losses:
                raise UnreachableError(host, f"{error.problem}, {lost} times", error.remedy) from error
            tell(host, f"{error.problem}; retrying for up to {waiting.left} s")
            connection = waiting.until_back(error)
            tell(host, "the connection is back")


class _Waiting:
    """Tries to connect, less and less often, while patience lasts."""

    def __init__(self, fleet: Fleet, host: str, patience: float, over: Callable[[], bool]) -> None:
        self._fleet, self._host, self._deadline, self._tries = fleet, host, Deadline(patience), 0
        self._over = over

    @property
    def left(self) -> str:
        return f"{self._deadline.remaining:.0f}"

    def until_back(self, lost: UnreachableError) -> Connection:
        error = lost
        while not self._deadline.expired:
            pause = PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
            if self._fleet.cancelled.wait(min(pause, self._deadline.remaining)) or self._over():
                raise InterruptedByUser("interrupted")
            try:
                return self._fleet.fresh_connection(self._host)
            except UnreachableError as failed:
                error = failed
        problem = f"{lost.problem}; not back after {self._deadline.seconds:g} s: {error.problem}"
        raise UnreachableError(self._host, problem, error.remedy) from error
