from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from paramiko import SSHException

from flagscale_deploy.errors import HostError, InterruptedByUser, RemoteError, UnforeseenError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.fleet import Fleet, GivenUpError, answers, connect, failures
from flagscale_deploy.transport.local import LocalConnection
from flagscale_deploy.transport.remote_program import Program
from flagscale_deploy.transport.ssh import SshConnection
from tests.fakes import FakeConnection, FakeFleet, Output, untyped

NAMES = [f"gpu{at:02}" for at in range(1, 9)]


def nothing(_host: Host, _module: str, _args: object) -> Iterator[Output]:
    yield {"ok": True}


def fleet(*, forks: int = 64, hosts: int = 8) -> FakeFleet:
    return FakeFleet(nothing, NAMES[:hosts], forks=forks)


def test_every_hosts_result_is_kept_in_the_order_of_the_inventory() -> None:
    def work(host: Host) -> str:
        if host.name in ("gpu02", "gpu05"):
            raise RemoteError(host.name, "disk full")
        return host.name.upper()

    results = fleet().map(work)
    assert list(results) == NAMES
    assert answers(results) == {name: name.upper() for name in NAMES if name not in ("gpu02", "gpu05")}
    assert {name: error.problem for name, error in failures(results).items()} == {
        "gpu02": "disk full", "gpu05": "disk full",
    }  # fmt: skip


def test_only_the_hosts_that_are_named() -> None:
    assert fleet().map(lambda host: host.name, ["gpu03", "gpu01"]) == {"gpu03": "gpu03", "gpu01": "gpu01"}
    assert fleet().map(lambda host: host.name, []) == {}


def test_a_name_that_a_record_made_up_is_that_names_error() -> None:
    results = fleet().map(lambda host: host.name, ["gpu01", "gpu99"])
    assert answers(results) == {"gpu01": "gpu01"}
    assert [error.lines[0] for error in failures(results).values()] == ["gpu99: it is not among this command's hosts"]


def test_all_at_the_same_time() -> None:
    meeting = threading.Barrier(8)
    assert len(answers(fleet().map(lambda _host: meeting.wait(10)))) == 8


class Crowd:
    """How many are in it at the same time, at most."""

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._now = self.most = 0

    def stay(self, seconds: float) -> None:
        with self._counting:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(seconds)
        with self._counting:
            self._now -= 1


@pytest.mark.parametrize("forks", [1, 3])
def test_no_more_than_forks_at_a_time(forks: int) -> None:
    crowd = Crowd()
    fleet(forks=forks).map(lambda _host: crowd.stay(0.01))
    assert crowd.most == forks


def test_tasks_that_last_are_done_together_whatever_the_forks() -> None:
    meeting = threading.Barrier(8)
    tasks = {name: lambda: meeting.wait(10) for name in NAMES}
    assert len(answers(fleet(forks=2).gather(tasks, together=True))) == 8


def test_no_more_than_forks_log_in_at_a_time_however_many_act(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd()

    def slow(self: FakeConnection) -> None:
        self.opened += 1
        if self.opened == 1:
            crowd.stay(0.02)

    monkeypatch.setattr(FakeConnection, "open", slow)
    running, meeting = fleet(forks=3), threading.Barrier(8)

    def work(name: str) -> None:
        running.connection(name)
        meeting.wait(10)
        running.connection(name)

    results = running.gather({name: partial(work, name) for name in NAMES}, together=True)
    assert not failures(results)
    assert crowd.most == 3
    assert {connection.opened for connection in running.connections.values()} == {2}


def test_where_no_more_threads_can_be_started_those_that_run_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    running = fleet()
    submit = ThreadPoolExecutor.submit

    def limited(self: ThreadPoolExecutor, act: Any, name: str, *more: Any) -> Any:
        if name == NAMES[2]:
            raise RuntimeError("can't start new thread")
        return submit(self, act, name, *more)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(RuntimeError, match="new thread"):
        running.map(lambda host: waits_for_cancel(running, host))


def waits_for_cancel(running: FakeFleet, host: Host) -> str:
    """Do what every program does: check whether it was cancelled."""
    if not running.cancelled.wait(10):
        raise RemoteError(host.name, "nobody cancelled it")
    raise InterruptedByUser("interrupted")


def test_fail_fast_ends_the_others_and_keeps_every_error() -> None:
    running = fleet()
    both = threading.Barrier(2)

    def work(host: Host) -> str:
        if host.name in ("gpu02", "gpu05"):
            both.wait(10)
            raise RemoteError(host.name, "broken")
        return waits_for_cancel(running, host)

    failed = failures(running.map(work, fail_fast=True))
    assert sorted(failed) == NAMES
    assert [name for name, error in failed.items() if not isinstance(error, GivenUpError)] == ["gpu02", "gpu05"]
    assert failed["gpu01"].problem == "stopped, because another host failed"


def test_fail_fast_starts_nothing_after_a_failure() -> None:
    begun = []

    def work(host: Host) -> None:
        begun.append(host.name)
        raise RemoteError(host.name, "broken")

    failed = failures(fleet(forks=1).map(work, fail_fast=True))
    assert begun == ["gpu01"]
    assert len(failed) == 8
    assert [type(error) for name, error in failed.items() if name != "gpu01"] == [GivenUpError] * 7


def test_what_comes_after_a_failure_is_not_cancelled() -> None:
    running = fleet()

    def work(host: Host) -> None:
        raise RemoteError(host.name, "broken")

    running.map(work, fail_fast=True)
    assert not running.cancelled.is_set()


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError(5, "a bug"), SSHException("a bug")])
def test_an_unforeseen_error_of_one_host_costs_the_others_nothing(error: Exception) -> None:
    running = fleet()

    def work(host: Host) -> str:
        if host.name == "gpu08":
            raise error
        return host.name

    results = running.map(work)
    unforeseen = results.pop("gpu08")
    assert isinstance(unforeseen, UnforeseenError)
    assert "a bug" in unforeseen.problem
    assert unforeseen.__cause__ is error
    assert results == {name: name for name in results}
    assert not running.cancelled.is_set()


@pytest.mark.parametrize("delays", [[0.05], [0.05, 0.05], [0.05, 0.3, 0.6]], ids=["one", "two", "three"])
def test_an_interrupt_ends_the_programs_and_returns_when_all_have_ended(delays: list[float]) -> None:
    """However many come: what goes on in a thread would be done after the caller has taken it back."""
    running = fleet()
    ended = []
    signals = [threading.Timer(delay, signal.raise_signal, [signal.SIGINT]) for delay in delays]

    def work(host: Host) -> str:
        try:
            for timer in signals:  # so that none comes when the handler is another again
                timer.join(60)
            return waits_for_cancel(running, host)
        finally:
            ended.append(host.name)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist has another
    try:
        for timer in signals:
            timer.start()
        with pytest.raises(KeyboardInterrupt):
            running.map(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(ended) == NAMES
    assert not running.cancelled.is_set()


def test_a_value_that_no_program_can_take_is_that_hosts_error() -> None:
    def work(host: Host) -> None:
        raise ValueError("a NUL byte cannot be passed to a program")

    error = fleet(hosts=1).map(work)["gpu01"]
    assert isinstance(error, RemoteError)
    assert str(error) == "gpu01: a NUL byte cannot be passed to a program"


@pytest.mark.parametrize("answer", [{}, {"listening": None}, {"listening": [3]}, {"listening": {"port": []}}])
def test_an_answer_of_another_shape_is_that_hosts_error(answer: dict[str, Any]) -> None:
    running = FakeFleet(lambda host, *_: [answer if host.name == "gpu01" else {"listening": []}], NAMES[:2])

    def work(host: Host) -> list[int]:
        with Program(running.connection(host.name), untyped("network_test"), {}, timeout=5) as program:
            return [door["port"] for door in program.hear()["listening"]]

    results = running.map(work)
    assert isinstance(results["gpu01"], RemoteError)
    assert results["gpu01"].problem.startswith("malformed reply from the host program (")
    assert results["gpu02"] == []


def test_a_connection_is_opened_once_and_used_for_everything() -> None:
    running = fleet(hosts=2)
    for _ in range(3):
        assert answers(running.call(untyped("probe"), lambda _host: {}, timeout=5)) == {
            "gpu01": {"ok": True}, "gpu02": {"ok": True},
        }  # fmt: skip
    assert [call.module for call in running.calls] == ["probe"] * 6
    assert all(len(connection.running) == 3 for connection in running.connections.values())


def test_a_host_that_refused_is_not_asked_again() -> None:
    refusal = UnreachableError("gpu02", "no answer")
    running = FakeFleet(nothing, NAMES[:2], refused={"gpu02": refusal})
    for _ in range(3):
        assert failures(running.call(untyped("probe"), lambda _host: {}, timeout=5)) == {"gpu02": refusal}
    assert running.connections["gpu02"].opened == 1


def test_all_connections_are_closed_at_the_end_also_after_an_error() -> None:
    running = fleet()
    with pytest.raises(RuntimeError):
        with running:
            raise RuntimeError
    assert all(connection.closed for connection in running.connections.values())


def test_a_broken_connection_is_that_hosts_error() -> None:
    def breaks(host: Host, _module: str, _args: object) -> Iterator[Output]:
        yield {"first": 1}
        if host.name == "gpu02":
            yield UnreachableError(host.name, "the SSH connection was lost")
        yield {"last": 2}

    running = FakeFleet(breaks, NAMES[:2])
    results = running.call(untyped("probe"), lambda _host: {}, timeout=5)
    assert results["gpu01"] == {"last": 2}
    assert isinstance(results["gpu02"], UnreachableError)


def test_a_cancelled_program_ends_although_its_host_is_silent() -> None:
    def silent(_host: Host, _module: str, _args: object) -> Iterator[Output]:
        while True:
            yield None

    def work(host: Host) -> None:
        if host.name == "gpu02":
            raise RemoteError(host.name, "broken")
        with Program(
            running.connection(host.name), untyped("probe"), {}, timeout=60, cancelled=running.cancelled
        ) as program:
            list(program.messages())

    running = FakeFleet(silent, NAMES[:2])
    failed = failures(running.map(work, fail_fast=True))
    assert isinstance(failed["gpu01"], GivenUpError)
    assert all(program.closed for program in running.connections["gpu01"].running)


def test_the_inventory_chooses_the_kind_of_connection() -> None:
    assert isinstance(connect(Host("a", "10.0.0.1"), 5), SshConnection)
    assert isinstance(connect(Host("a", "localhost", connection="local"), 5), LocalConnection)


def test_errors_and_answers_are_told_apart() -> None:
    error = HostError("b", "x")
    results: dict[str, int | HostError] = {"a": 1, "b": error}
    assert (answers(results), failures(results)) == ({"a": 1}, {"b": error})


def test_many_hosts_are_not_too_many_open_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 256), before[1]))
    try:
        Fleet([Host(f"gpu{number}", f"gpu{number}") for number in range(1000)]).close()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(3000, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
