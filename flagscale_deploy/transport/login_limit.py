"""Limit how many logins are in progress at one address: sshd closes connections at random beyond 10 (MaxStartups)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from flagscale_deploy.errors import InterruptedByUser

MOST_LOGINS = 8
"""sshd's default, 10:30:100, closes 30 % of new connections from the tenth on that has not logged in."""
STEP_SECONDS = 0.25


@dataclass
class _Address:
    inside: int = 0
    queue: deque[object] = field(default_factory=deque)
    last_login: float = 0.0


class Slot:
    """The right to log in at an address; `release` it when the login has ended."""

    def __init__(self, release: Callable[[bool], None]) -> None:
        self._release: Callable[[bool], None] | None = release

    def release(self, *, logged_in: bool = False) -> None:
        """Let the next one log in; harmless when released."""
        release, self._release = self._release, None
        if release is not None:
            release(logged_in)


class LoginLimit:
    """At most `most` logins at an address at a time; others wait in the order in which they came."""

    def __init__(self, most: int = MOST_LOGINS, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = most, now
        self._changed = threading.Condition()
        self._addresses: dict[Hashable, _Address] = {}

    def acquire(self, name: Hashable, patience: float, cancelled: threading.Event) -> Slot:
        """Wait for a slot at an address.

        Raises TimeoutError when nobody has logged in there for `patience` seconds of waiting, and InterruptedByUser.
        """
        began, ticket = self._now(), object()
        with self._changed:
            address = self._addresses.setdefault(name, _Address())
            address.queue.append(ticket)
            try:
                while address.inside >= self._most or address.queue[0] is not ticket:
                    if cancelled.is_set():
                        raise InterruptedByUser("interrupted")
                    if self._now() - max(began, address.last_login) >= patience:
                        raise TimeoutError
                    self._changed.wait(STEP_SECONDS)
                address.inside += 1
            finally:
                address.queue.remove(ticket)
                self._forget(name, address)
                self._changed.notify_all()
        return Slot(lambda logged_in: self._release(name, address, logged_in))

    def _release(self, name: Hashable, address: _Address, logged_in: bool) -> None:
        with self._changed:
            address.inside -= 1
            if logged_in:
                address.last_login = self._now()
            self._forget(name, address)
            self._changed.notify_all()

    def _forget(self, name: Hashable, address: _Address) -> None:
        if not address.inside and not address.queue:
            self._addresses.pop(name, None)
