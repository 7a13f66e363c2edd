"""The pool of connections to jump hosts, with connections that are none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import paramiko
import pytest

from flagscale_deploy.errors import AuthenticationError, InterruptedByUser
from flagscale_deploy.transport import jump_hosts
from flagscale_deploy.transport.jump_hosts import DialLateError, JumpChannel, JumpHosts
from flagscale_deploy.transport.ssh_transport import Refusal

NEVER = threading.Event()
FORBIDDEN = ("forbidden", 22)
SHORTAGE = paramiko.common.OPEN_FAILED_RESOURCE_SHORTAGE
PROHIBITED = paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class StandIn:
    """A connection that opens at most so many channels, and none to a place that is forbidden."""

    def __init__(self, most: int = 1000, code: int = SHORTAGE) -> None:
        self.most, self.code = most, code
        self.open_channels = self.largest = 0
        self.is_open, self.silent = True, False
        self.closed = 0
        self.lock = threading.Lock()

    def request(self, place: tuple[str, int]) -> Pending:
        with self.lock:
            if not self.is_open:
                return Pending(EOFError())
            if self.silent:
                return Pending(TimeoutError())
            if place == FORBIDDEN:
                return Pending(Refusal(PROHIBITED, "open failed", self.open_channels))
            if self.open_channels >= self.most:
                return Pending(Refusal(self.code, "open failed", self.open_channels))
            self.open_channels += 1
            self.largest = max(self.largest, self.open_channels)
        return Pending(None, self)

    def answers(self) -> bool:
        return not self.silent

    def close(self) -> None:
        self.closed += 1
        self.is_open = False


class Channel(paramiko.Channel):
    def __init__(self, login: StandIn) -> None:
        super().__init__(0)
        self.login = login

    def close(self) -> None:
        with self.login.lock:
            self.login.open_channels -= 1


@dataclass
class Pending:
    error: Exception | None
    login: StandIn | None = None

    def wait(self, _timeout: float, _cancelled: threading.Event) -> paramiko.Channel:
        if self.error is not None:
            raise self.error
        assert self.login
        return Channel(self.login)


@dataclass
class Pool:
    """A pool, with what was dialled."""

    make: Callable[[], StandIn] = StandIn
    dial_seconds: float = 0.02
    hosts: JumpHosts[StandIn] = field(default_factory=JumpHosts)
    dialled: list[StandIn] = field(default_factory=list)

    def dial(self) -> StandIn:
        threading.Event().wait(self.dial_seconds)
        login = self.make()
        self.dialled.append(login)
        return login

    def open(self, place: tuple[str, int] = ("gpu01", 22), key: str = "s21") -> JumpChannel[StandIn]:
        return self.hosts.open(key, place, dial=self.dial, timeout=5, cancelled=NEVER)

    def open_many(self, count: int) -> list[JumpChannel[StandIn]]:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(lambda _: self.open(), range(count)))


def test_many_that_ask_at_once_share_one_connection_which_ends_with_the_last_of_them() -> None:
    pool = Pool()
    channels = pool.open_many(60)
    (login,) = pool.dialled
    assert login.open_channels == 60
    for jump_channel in channels[:-1]:
        jump_channel.close()
        jump_channel.close()
    assert login.closed == 0
    channels[-1].close()
    assert (login.closed, login.open_channels, pool.hosts._groups) == (1, 0, {})


def test_more_hosts_than_channels_of_a_connection_get_further_ones() -> None:
    pool = Pool()
    channels = [pool.open() for _ in range(3 * jump_hosts.MOST_CHANNELS)]
    assert [login.largest for login in pool.dialled] == [jump_hosts.MOST_CHANNELS] * 3
    for jump_channel in channels:
        jump_channel.close()
    assert [login.closed for login in pool.dialled] == [1, 1, 1]


@pytest.mark.parametrize("code", [SHORTAGE, PROHIBITED])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_server_that_allows_few_channels_gets_as_many_connections_as_it_takes(most: int, code: int) -> None:
    pool = Pool(lambda: StandIn(most, code))
    channels = pool.open_many(40)
    used = [login for login in pool.dialled if login.open_channels]
    assert sum(login.open_channels for login in used) == 40
    assert len(used) >= 40 / most
    for jump_channel in channels:
        jump_channel.close()
    assert all(login.closed == 1 for login in pool.dialled)
    assert pool.hosts._groups == {}


def test_a_place_that_is_forbidden_is_an_error_and_costs_the_others_nothing() -> None:
    pool = Pool()
    channels = [pool.open(), pool.open()]
    with pytest.raises(Refusal):
        pool.open(FORBIDDEN)
    channels += pool.open_many(30)
    assert {jump_channel.login for jump_channel in channels} == {pool.dialled[0]}
    assert [login.closed for login in pool.dialled] == [0, 1]


def test_other_keys_share_nothing() -> None:
    pool = Pool()
    assert pool.open(key="s21").login is not pool.open(key="s22").login


def test_a_connection_that_is_lost_is_replaced() -> None:
    pool = Pool()
    lost = pool.open()
    lost.login.is_open = False
    assert pool.open().login is pool.dialled[1]
    lost.close()
    assert [login.closed for login in pool.dialled] == [1, 0]


def test_a_connection_that_is_lost_while_it_is_asked_is_replaced() -> None:
    pool = Pool()
    first = pool.open()
    real = first.login.request

    def lose(place: tuple[str, int]) -> Pending:
        first.login.is_open = False
        return real(place)

    first.login.request = lose  # type: ignore[method-assign]
    assert pool.open().login is pool.dialled[1]


def test_a_server_that_does_not_answer_gets_no_further_hosts() -> None:
    pool = Pool()
    first = pool.open()
    first.login.silent = True
    with pytest.raises(TimeoutError):
        pool.open()
    assert pool.open().login is pool.dialled[1]
    first.close()
    assert pool.dialled[0].closed == 1


def test_a_dial_that_fails_fails_all_that_wait_and_the_next_ones_try_again() -> None:
    refused = threading.Event()
    refused.set()
    dials = []

    def make() -> StandIn:
        dials.append(1)
        if refused.is_set():
            while next(iter(pool.hosts._groups.values())).waiting < 15:
                threading.Event().wait(0.001)
            raise AuthenticationError("gpu01", "jump host s21: cannot log in")
        return StandIn()

    pool = Pool(make)
    with ThreadPoolExecutor(16) as threads:
        errors = [future.exception() for future in [threads.submit(pool.open) for _ in range(16)]]
    assert {str(error) for error in errors} == {"gpu01: jump host s21: cannot log in"}
    assert (len(dials), pool.hosts._groups) == (1, {})
    refused.clear()
    pool.open().close()
    assert len(dials) == 2


def test_one_that_is_interrupted_while_it_dials_leaves_the_dialling_to_the_next() -> None:
    first = threading.Event()

    def make() -> StandIn:
        if not first.is_set():
            first.set()
            raise InterruptedByUser("interrupted")
        return StandIn()

    pool = Pool(make, dial_seconds=0.1)
    with ThreadPoolExecutor(4) as threads:
        outcomes = [future.exception() for future in [threads.submit(pool.open) for _ in range(4)]]
    assert [type(outcome) for outcome in outcomes].count(InterruptedByUser) == 1
    assert outcomes.count(None) == 3
    assert len(pool.dialled) == 1


def test_who_waits_for_anothers_dial_has_a_deadline_and_can_be_interrupted() -> None:
    end = threading.Event()

    def make() -> StandIn:
        end.wait(10)
        return StandIn()

    pool = Pool(make)
    with ThreadPoolExecutor(1) as threads:
        dialling = threads.submit(pool.open)
        while not pool.hosts._groups:
            threading.Event().wait(0.001)
        with pytest.raises(DialLateError):
            pool.hosts.open("s21", ("gpu02", 22), dial=pool.dial, timeout=0.02, cancelled=NEVER)
        cancelled = threading.Event()
        cancelled.set()
        with pytest.raises(InterruptedByUser):
            pool.hosts.open("s21", ("gpu02", 22), dial=pool.dial, timeout=5, cancelled=cancelled)
        end.set()
        jump_channel = dialling.result(10)
    jump_channel.close()
    assert (pool.dialled[0].closed, pool.hosts._groups) == (1, {})
