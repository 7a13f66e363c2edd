"""Hosts behind a jump host that takes nothing are left all at once, and not one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from flagscale_deploy.deploy.network_test import DATA, ListenPort, NetworkTest
from flagscale_deploy.deploy.watchdog import StartupWatchdog
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.push.members import Inbox
from flagscale_deploy.push.session import Session
from flagscale_deploy.transport.remote_program import at_once
from tests.fakes import FakeFleet, FakeRunning, Output
from tests.unit.deploy.given import PLAN

NAMES = ("gpu01", "gpu02", "gpu03", "gpu04")


class Meeting:
    """Something that ends on no host before it has begun on all of them."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(len(NAMES), timeout=20)
        self.ended = 0

    def __call__(self, *_: object) -> None:
        self._barrier.wait()
        self.ended += 1


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


def test_acts_do_not_wait_for_each_other(meeting: Meeting) -> None:
    at_once([meeting] * len(NAMES))
    assert meeting.ended == len(NAMES)


def test_without_more_threads_they_are_done_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    at_once([lambda: done.append(1), lambda: done.append(2)])
    assert done == [1, 2]


@pytest.mark.parametrize("late", ["close", "close_stdin"])
def test_a_test_of_the_network_ends_on_all_hosts(meeting: Meeting, monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    def listen(_host: Host, _args: dict[str, Any]) -> Iterator[Output]:
        yield {"listening": [{"port": 5000}]}
        yield {"tried": []}

    fleet = FakeFleet(lambda host, _module, args: listen(host, args), NAMES)
    ports = [ListenPort(name, "10.0.0.1", 0, DATA, frozenset(), ephemeral=True) for name in NAMES]
    with ExitStack() as stack:
        test = NetworkTest(fleet, NAMES, ports, 60, stack)
        test.connect(NAMES[0])
        assert set(test.programs) == set(NAMES)
        monkeypatch.setattr(FakeRunning, late, meeting)
        test.end()
    assert meeting.ended == len(NAMES)


class Fake:
    def __init__(self, meeting: Meeting) -> None:
        self.end_input = self.close = meeting

    def join(self, _seconds: float) -> None:
        """Have no threads."""


def test_the_watch_of_a_start_ends_on_all_hosts(meeting: Meeting) -> None:
    watchdog = StartupWatchdog(PLAN, FakeFleet(lambda *_: ()), 60, lambda _: None)
    fakes: Any = [Fake(meeting) for _ in NAMES]
    watchdog._programs.extend(fakes)
    watchdog.stop()
    assert meeting.ended == len(NAMES)


def test_a_push_ends_on_all_hosts(meeting: Meeting) -> None:
    session = Session(Inbox(), "SRC", lambda _: None)
    fakes: Any = {name: Fake(meeting) for name in NAMES}
    session.members = fakes
    session.close()
    assert meeting.ended == len(NAMES)
