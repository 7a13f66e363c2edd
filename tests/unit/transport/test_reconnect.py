"""Work that outlives a connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest

from flagscale_deploy.errors import ConnectError, HostKeyError, InterruptedByUser, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Bounds, through_losses
from tests.fakes import FakeConnection, FakeFleet, Output

LOST = UnreachableError("gpu01", "the SSH connection was lost", "look at the network")


def nothing(_host: Host, _module: str, _args: object) -> Iterable[Output]:
    return ()


class Flaky(FakeConnection):
    """A connection that can't be opened some of the times."""

    def __init__(self, host: Host, refusals: list[ConnectError | None]) -> None:
        super().__init__(host, nothing, [])
        self._refusals = refusals

    def open(self) -> None:
        super().open()
        if self._refusals and (refusal := self._refusals.pop(0)) is not None:
            raise refusal


def flaky(*refusals: ConnectError | None) -> Fleet:
    return Fleet([Host("gpu01", "gpu01")], connect=lambda host, _timeout: Flaky(host, list(refusals)))


class Work:
    """Work that is lost so many times, having come further each time or not."""

    def __init__(self, losses: int, further: bool = True) -> None:
        self.losses, self.further, self.done = losses, further, 0

    def __call__(self, _connection: Connection) -> str:
        if not self.losses:
            return "done"
        self.losses -= 1
        self.done += self.further
        raise LOST


def test_it_is_done_again_on_a_fresh_connection_and_that_is_told() -> None:
    events: list[str] = []
    fleet = flaky(None, UnreachableError("gpu01", "no answer"), None)
    work = Work(1)
    result = through_losses(
        fleet, "gpu01", work, heard=lambda: work.done, patience=10, tell=lambda _host, text: events.append(text)
    )
    assert result == "done"
    assert events == ["the SSH connection was lost; retrying for up to 10 s", "the connection is back"]


def test_a_connection_that_does_not_come_back_is_given_up_with_both_reasons() -> None:
    fleet = flaky(None, *[UnreachableError("gpu01", "no route", "plug it in")] * 1000)
    began = time.monotonic()
    with pytest.raises(UnreachableError) as raised:
        through_losses(fleet, "gpu01", Work(1), heard=lambda: 0, patience=0.5, tell=lambda *_: None)
    assert raised.value.problem == "the SSH connection was lost; not back after 0.5 s: no route"
    assert raised.value.remedy == "plug it in"
    assert time.monotonic() - began < 30


def test_patience_begins_anew_only_where_the_work_came_further() -> None:
    with pytest.raises(UnreachableError, match=r"not back after 0\.3 s"):
        through_losses(flaky(), "gpu01", Work(1000, further=False), heard=lambda: 0, patience=0.3, tell=lambda *_: None)


def test_losses_may_be_bounded() -> None:
    work = Work(1000)
    with pytest.raises(UnreachableError, match="3 times"):
        through_losses(
            flaky(), "gpu01", work, heard=lambda: work.done, patience=9, bounds=Bounds(losses=2), tell=lambda *_: None
        )


def test_a_host_that_has_become_another_is_not_tried_again() -> None:
    changed = HostKeyError("gpu01", "its key has changed")
    fleet = flaky(None, changed, None)
    with pytest.raises(HostKeyError):
        through_losses(fleet, "gpu01", Work(1), heard=lambda: 0, patience=10, tell=lambda *_: None)


def test_it_ends_when_the_caller_is_interrupted() -> None:
    fleet = flaky(None, *[UnreachableError("gpu01", "no route")] * 1000)
    threading.Timer(0.2, fleet.cancelled.set).start()
    with pytest.raises(InterruptedByUser):
        through_losses(fleet, "gpu01", Work(1), heard=lambda: 0, patience=60, tell=lambda *_: None)


def test_a_host_that_failed_once_may_be_asked_for_a_fresh_connection() -> None:
    fleet = FakeFleet(nothing, refused={"gpu01": LOST})
    with pytest.raises(UnreachableError):
        fleet.connection("gpu01")
    fleet.connections["gpu01"]._refused = None
    assert fleet.fresh_connection("gpu01") is fleet.connection("gpu01")
