"""Share connections to jump hosts: the hosts behind one are channels of as few connections as its server allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import paramiko

from flagscale_deploy.errors import ConnectError, InterruptedByUser
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.ssh_transport import LIMITS, Refusal

MOST_CHANNELS = 64
"""Channels of one connection: each takes an open file of its process on the jump host, which has 1024 of them."""
STEP_SECONDS = 0.25
DIALS = 4
"""How many times the timeout another thread's dial is waited for: connection, greeting, key exchange and login."""


class PendingChannel(Protocol):
    """A channel that has been asked for; see `Opening`."""

    def wait(self, timeout: float, cancelled: threading.Event) -> paramiko.Channel:
        """Return the open channel."""


class JumpLogin(Protocol):
    """A connection to a jump host, which opens channels to other machines."""

    @property
    def is_open(self) -> bool:
        """Return whether it has not been lost."""

    def request(self, place: tuple[str, int]) -> PendingChannel:
        """Ask for a channel to a place."""

    def answers(self) -> bool:
        """Return whether the server still answers."""

    def close(self) -> None:
        """Close it."""


class DialLateError(Exception):
    """Nobody has connected to the jump host in time."""


LoginT = TypeVar("LoginT", bound=JumpLogin)


@dataclass(eq=False)
class _Shared(Generic[LoginT]):
    login: LoginT
    channels: int = 0
    """Those that are open or asked for."""
    retired: bool = False


@dataclass(eq=False)
class _Group(Generic[LoginT]):
    """The connections to one jump host with the same settings."""

    shared: list[_Shared[LoginT]] = field(default_factory=list)
    most: int = MOST_CHANNELS
    dialling: int = 0
    waiting: int = 0
    failures: int = 0
    failure: ConnectError | None = None

    def take(self, refused: Iterable[_Shared[LoginT]]) -> _Shared[LoginT] | None:
        """Return a connection that has room, with one channel more; not one of those that have refused it."""
        for shared in self.shared:
            if shared.channels < self.most and not shared.retired and shared.login.is_open and shared not in refused:
                shared.channels += 1
                return shared
        return None

    def remove_idle(self) -> list[_Shared[LoginT]]:
        """Return connections that nobody uses or waits for; they are no longer of the group."""
        unused = [shared for shared in self.shared if not shared.channels]
        idle = [shared for shared in unused if shared.retired or not shared.login.is_open or not self.waiting]
        self.shared = [shared for shared in self.shared if shared not in idle]
        return idle


class JumpChannel(Generic[LoginT]):
    """A channel through a jump host to another machine; close it to give it back."""

    def __init__(self, channel: paramiko.Channel, login: LoginT, leave: Callable[[], None]) -> None:
        self.channel, self.login, self._leave = channel, login, leave
        self._closed = threading.Lock()

    def close(self) -> None:
        """Close the channel, and the connection to the jump host with its last one; harmless when closed."""
        if self._closed.acquire(blocking=False):
            try:
                self.channel.close()
            except (OSError, EOFError, paramiko.SSHException):
                pass  # the connection is lost
            finally:
                self._leave()


class JumpHosts(Generic[LoginT]):
    """All connections to jump hosts. Threads that ask for the same one at once wait for one of them to connect."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._groups: dict[Hashable, _Group[LoginT]] = {}

    def open(
        self,
        key: Hashable,
        place: tuple[str, int],
        *,
        dial: Callable[[], LoginT],
        timeout: float,
        cancelled: threading.Event,
    ) -> JumpChannel[LoginT]:
        """Return a channel to a place through the jump host of the key: who has the same key shares connections.

        `dial` makes a connection; its ConnectError fails all that wait for it, and the next ones try again. Raises
        DialLateError, and what `Opening.wait` does.
        """
        refused: list[_Shared[LoginT]] = []
        while True:
            group, shared = self._taken(key, refused, Deadline(DIALS * timeout), cancelled)
            is_first = shared is None
            if shared is None:
                shared, pending = self._dialled(key, group, dial, place)
            leave = partial(self._leave, key, group, shared)
            try:
                if not is_first:
                    pending = shared.login.request(place)
                return JumpChannel(pending.wait(timeout, cancelled), shared.login, leave)
            except BaseException as error:
                self._learn(group, shared, error, is_first=is_first)
                leave()
                if is_first or not _is_of_connection(error):
                    raise
                refused.append(shared)

    def _taken(
        self, key: Hashable, refused: Iterable[_Shared[LoginT]], deadline: Deadline, cancelled: threading.Event
    ) -> tuple[_Group[LoginT], _Shared[LoginT] | None]:
        """Return a connection with room, waiting for those that are dialled; None where the caller is to dial."""
        with self._changed:
            group = self._groups.setdefault(key, _Group())
            group.waiting += 1
        try:
            with self._changed:
                return group, self._next(group, refused, deadline, cancelled)
        except BaseException:
            self._end_idle(key, group)  # what was dialled for this one
            raise

    def _next(
        self, group: _Group[LoginT], refused: Iterable[_Shared[LoginT]], deadline: Deadline, cancelled: threading.Event
    ) -> _Shared[LoginT] | None:
        failures = group.failures
        try:
            while True:
                if (shared := group.take(refused)) is not None:
                    return shared
                if group.failure is not None and group.failures != failures:
                    raise group.failure
                if group.dialling * group.most < group.waiting:
                    group.dialling += 1
                    return None
                if cancelled.is_set():
                    raise InterruptedByUser("interrupted")
                if deadline.expired:
                    raise DialLateError
                self._changed.wait(STEP_SECONDS)
        finally:
            group.waiting -= 1

    def _dialled(
        self, key: Hashable, group: _Group[LoginT], dial: Callable[[], LoginT], place: tuple[str, int]
    ) -> tuple[_Shared[LoginT], PendingChannel]:
        """Return a new connection with its first channel: where that one is refused, it is not for want of room."""
        login = shared = failure = None
        try:
            login = dial()
            pending = login.request(place)
            shared = _Shared(login, channels=1)
            return shared, pending
        except ConnectError as error:
            failure = error
            raise
        finally:
            with self._changed:
                group.dialling -= 1
                if shared is not None:
                    group.shared.append(shared)
                if failure is not None:
                    group.failure, group.failures = failure, group.failures + 1
                self._changed.notify_all()
            if shared is None:
                self._end_idle(key, group)
                if login is not None:
                    login.close()

    def _learn(self, group: _Group[LoginT], shared: _Shared[LoginT], error: BaseException, *, is_first: bool) -> None:
        """Note how many channels the server allows in a connection, and whether it still answers."""
        silent = isinstance(error, TimeoutError) and not shared.login.answers()
        with self._changed:
            shared.retired = shared.retired or silent
            if isinstance(error, Refusal) and error.code in LIMITS:
                group.most = MOST_CHANNELS if is_first else max(1, min(group.most, error.others))

    def _leave(self, key: Hashable, group: _Group[LoginT], shared: _Shared[LoginT]) -> None:
        with self._changed:
            shared.channels -= 1
        self._end_idle(key, group)

    def _end_idle(self, key: Hashable, group: _Group[LoginT]) -> None:
        """Close the connections that nobody uses, and forget the group with its last one."""
        with self._changed:
            idle = group.remove_idle()
            if not (group.shared or group.dialling or group.waiting) and self._groups.get(key) is group:
                del self._groups[key]
            self._changed.notify_all()
        for shared in idle:
            shared.login.close()


def _is_of_connection(error: BaseException) -> bool:
    """Return whether a channel failed because of its connection, which is full or lost, so that another may do."""
    return error.code in LIMITS if isinstance(error, Refusal) else isinstance(error, (EOFError, paramiko.SSHException))
