from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

import pytest

from flagscale_deploy.deploy import stop as module
from flagscale_deploy.deploy.stop import HostStop, State, StopReport, describe, remove_leftovers, stop_deployment
from flagscale_deploy.errors import ConnectError, InterruptedByUser, LockLostError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.stop import PortLeft
from flagscale_deploy.transport.fleet import answers, failures
from tests.fakes import Exit, FakeFleet, Output, Stderr
from tests.unit.deploy.given import Heard, answering

SURVIVOR = {"pid": 7, "command": "vllm serve", "state": "D", "why": "it does not end"}
GO = b'{"go": "on"}\n'
PORT: PortLeft = {"port": 4567, "pid": 9, "command": "nginx"}


def done(ended: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event": "done", "ended": ended, "survivors": [], "ports_left": [], "segments": 1, "seconds": 0.5,
        "after_stop": None, "unclosed": "", **fields,
    }  # fmt: skip


def waiting(ended: int) -> dict[str, Any]:
    return {"event": "waiting", "ended": ended, "seconds": 0.25, "segments": 1}


def stopping(done: dict[str, Any], **refused: ConnectError) -> tuple[FakeFleet, StopReport, Heard]:
    def stop(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"event": "stage", "stage": "engines", "signalled": 3}
        yield {"event": "killed", "count": 1}
        yield waiting(2)
        yield done

    fleet, heard = FakeFleet(answering(stop=stop), ["gpu01", "gpu02"], refused=refused), Heard()
    return fleet, stop_deployment(fleet, "qwen", 30.0, heard), heard


def test_engines_end_on_all_hosts_before_ray_ends_on_any() -> None:
    order: list[str] = []

    def stop(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        assert args["wait"] > 30
        while host.name == "gpu03" and order.count("engines") < 2:
            yield None
        order.append("engines")
        yield waiting(2)
        order.append("ray")
        yield done(16)

    fleet = FakeFleet(answering(stop=stop), ["gpu01", "gpu02", "gpu03"], forks=1)
    report = stop_deployment(fleet, "qwen", 30.0, Heard())
    assert order == ["engines"] * 3 + ["ray"] * 3
    assert {call.args["grace"] for call in fleet.sent("stop")} == {30.0}
    assert [(host.host, host.state, host.ended, host.seconds) for host in report.hosts] == [
        ("gpu01", "stopped", 16, 0.5), ("gpu02", "stopped", 16, 0.5), ("gpu03", "stopped", 16, 0.5),
    ]  # fmt: skip
    assert (report.exit_code, report.ended) == (0, 48)
    assert len(fleet.calls) == 3


@pytest.mark.parametrize("odd", [{"event": "killed"}, {"no": "event"}, {"event": "stage"}])
def test_a_host_that_answers_nonsense_keeps_no_other_one_waiting(odd: dict[str, Any]) -> None:
    runs: list[tuple[str, bool]] = []

    def stop(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        runs.append((host.name, args["wait"] is not None))
        if host.name == "gpu01":
            yield odd
        yield waiting(2)
        yield done(2)

    report = stop_deployment(FakeFleet(answering(stop=stop), ["gpu01", "gpu02"]), "qwen", 1.0, Heard())
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "failed"), ("gpu02", "stopped")]
    assert sorted(runs) == [("gpu01", False), ("gpu01", True), ("gpu02", True)]


def test_a_host_that_babbles_keeps_nobody_waiting_and_fills_no_terminal() -> None:
    heard = Heard()

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        while host.name == "gpu01":
            yield {"event": "killed", "count": 1}
        yield waiting(2)
        yield done(2)

    began = time.monotonic()
    report = stop_deployment(FakeFleet(answering(stop=stop), ["gpu01", "gpu02"]), "qwen", 1.0, heard)
    assert time.monotonic() - began < 30
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "failed"), ("gpu02", "stopped")]
    assert "sent more than" in report.hosts[0].problem
    assert len(heard.events) < 200


def test_a_host_that_waits_again_and_again_puts_its_deadline_off_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLACK_SECONDS", 0.5)
    monkeypatch.setattr(module, "RAY_GRACE_SECONDS", 0.0)

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        while host.name == "gpu01":
            yield waiting(0)
            yield from [None] * 20
        yield waiting(2)
        yield done(2)

    began = time.monotonic()
    report = stop_deployment(FakeFleet(answering(stop=stop), ["gpu01", "gpu02"]), "qwen", 0.5, Heard())
    assert time.monotonic() - began < 30
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "failed"), ("gpu02", "stopped")]


def last_sent(fleet: FakeFleet, host: str) -> bytes:
    return fleet.connections[host].running[-1].last_sent


def test_a_host_goes_on_only_when_it_is_told_to_and_it_is_told_when_the_last_one_waits() -> None:
    sent: list[bool] = []

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            for _ in range(20):
                yield None
            sent.append(last_sent(fleet, "gpu01") == GO)
        yield waiting(2)
        sent.append(last_sent(fleet, host.name) == GO)
        yield done(2)

    fleet = FakeFleet(answering(stop=stop), ["gpu01", "gpu02"])
    stop_deployment(fleet, "qwen", 1.0, Heard())
    assert sent == [False, True, True]


def test_a_lock_that_was_lost_while_a_host_waits_ends_nothing_more() -> None:
    def lost() -> None:
        if waits:
            raise LockLostError("the lock is somebody else's")

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        waits.append(host.name)
        yield waiting(2)
        yield done(2)

    waits: list[str] = []
    fleet = FakeFleet(answering(stop=stop))
    fleet.guard = lost
    with pytest.raises(LockLostError):
        stop_deployment(fleet, "qwen", 1.0, Heard())
    assert waits == ["gpu01"]
    assert last_sent(fleet, "gpu01") != GO


@pytest.mark.parametrize("_again", range(5))
def test_an_interruption_lets_no_host_go_on_that_waits_for_others(_again: int) -> None:
    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu01":
            yield waiting(2)
            yield done(2)
        for turn in itertools.count():
            if turn == 10:
                fleet.cancelled.set()
            yield None

    fleet = FakeFleet(answering(stop=stop), ["gpu01", "gpu02"])
    with pytest.raises(InterruptedByUser):
        stop_deployment(fleet, "qwen", 1.0, Heard())
    assert last_sent(fleet, "gpu01") != GO
    assert len(fleet.calls) == 2


def test_nothing_to_stop_is_well() -> None:
    _, report, heard = stopping(done())
    assert {host.state for host in report.hosts} == {"nothing"}
    assert report.exit_code == 0
    assert heard.texts("stop", "done") == ["nothing was running; 1 shared-memory segment removed"] * 2


def test_signals_are_told() -> None:
    _, _, heard = stopping(done(2))
    assert "engines: SIGTERM to 3 processes" in heard.texts("stop", "progress")
    assert "SIGKILL to 1 process that did not end" in heard.texts("stop", "progress")


def test_survivors_are_named_and_are_a_failure() -> None:
    _, report, heard = stopping(done(3, survivors=[SURVIVOR]))
    assert report.exit_code == 1
    assert heard.texts("stop", "failed") == ["1 process survived: pid 7 vllm serve: it does not end"] * 2


def test_a_host_that_cannot_be_reached_is_unknown_and_never_stopped() -> None:
    _, report, heard = stopping(done(2), gpu02=UnreachableError("gpu02", "no answer"))
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "stopped"), ("gpu02", "UNKNOWN")]
    assert report.exit_code == 3
    assert heard.texts("stop", "failed") == ["UNKNOWN: no answer"]


LOST = UnreachableError("gpu01", "the SSH connection was lost")


@pytest.mark.parametrize("waited", [False, True])
def test_a_connection_that_breaks_is_made_again_once_and_what_had_ended_counts(waited: bool) -> None:
    order: list[str] = []

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        order.append(host.name)
        if host.name == "gpu01" and order.count("gpu01") == 1:
            if waited:
                yield waiting(2)
            yield LOST
        yield waiting(1)
        yield done(1)

    fleet = FakeFleet(answering(stop=stop), ["gpu01", "gpu02"])
    report = stop_deployment(fleet, "qwen", 1.0, Heard())
    assert [(host.host, host.state, host.ended, host.seconds) for host in report.hosts] == [
        ("gpu01", "stopped", 3 if waited else 1, 0.75 if waited else 0.5), ("gpu02", "stopped", 1, 0.5),
    ]  # fmt: skip
    assert [call.args["wait"] is not None for call in fleet.calls] == [True, True, True]


def test_secrets_that_cannot_be_removed_are_a_failure_and_what_ended_is_told() -> None:
    unclosed = "[Errno 30] Read-only file system: '/root/.flagscale-deploy/qwen/gpu01/secrets/env'"
    _, report, heard = stopping(done(3, unclosed=unclosed))
    assert {host.state for host in report.hosts} == {"failed"}
    assert report.exit_code == 1
    text = f"failed: 3 processes ended, none left, but secrets or record could not be removed: {unclosed}"
    assert heard.texts("stop", "failed") == [text] * 2


def test_a_program_that_fails_is_a_failure_and_not_unknown() -> None:
    fleet = FakeFleet(answering(stop=lambda _host, _args: [Stderr(b"boom\n"), Exit(1)]))
    report = stop_deployment(fleet, "qwen", 1.0, Heard())
    assert [(host.state, host.problem) for host in report.hosts] == [("failed", "stop: exit status 1: boom")]
    assert report.exit_code == 1


def test_a_program_that_ends_without_an_answer_is_a_failure() -> None:
    report = stop_deployment(FakeFleet(answering(stop=lambda _host, _args: [])), "qwen", 1.0, Heard())
    assert report.hosts[0].state == "failed"
    assert "without a reply" in report.hosts[0].problem


@pytest.mark.parametrize("wrong", [Exit(1), LOST], ids=["failed", "lost"])
def test_a_program_that_failed_before_ray_ended_anywhere_is_run_again(wrong: Output) -> None:
    order: list[tuple[str, bool]] = []

    def stop(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        order.append((host.name, args["wait"] is not None))
        if args["wait"] is not None and host.name == "gpu01":
            yield wrong
            return
        while host.name == "gpu02" and ("gpu01", True) not in order:
            yield None
        if args["wait"] is not None:
            yield waiting(1)
        yield done(5)

    report = stop_deployment(FakeFleet(answering(stop=stop), ["gpu01", "gpu02"]), "qwen", 1.0, Heard())
    assert [(host.state, host.ended) for host in report.hosts] == [("stopped", 5)] * 2
    assert order[-1] == ("gpu01", False)


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["stopped", "nothing"], 0),
        (["stopped", "UNKNOWN"], 3),
        (["UNKNOWN", "survivors"], 1),
        (["failed"], 1),
        ([], 0),
    ],
)
def test_what_could_not_be_verified_decides_the_exit_status(states: list[State], code: int) -> None:
    assert StopReport(tuple(HostStop("h", state) for state in states)).exit_code == code


def test_ports_that_somebody_else_holds_are_told() -> None:
    host = HostStop("gpu01", "stopped", ended=3, ports_left=(PORT,))
    assert describe(host) == "3 processes ended, none left; port 4567 is held by nginx"


def test_what_could_not_be_removed_is_a_failure() -> None:
    hosts = (HostStop("h", "nothing"),)
    assert StopReport(hosts, {"h": ("/a",)}, {"h": ()}).exit_code == 0
    assert StopReport(hosts, {"h": ("/a",)}, {"h": ({"path": "/c", "why": "in use"},)}).exit_code == 1


def test_leftovers_are_removed_and_what_was_kept_is_told() -> None:
    def cleanup(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        kept = [{"path": "/c", "why": "in use"}] if host.name == "gpu02" else []
        yield {"removed": ["/a", "/b"], "bytes": 1, "kept": kept}

    heard = Heard()
    refused = {"gpu03": UnreachableError("gpu03", "no answer")}
    fleet = FakeFleet(answering(cleanup=cleanup), ["gpu01", "gpu02", "gpu03"], refused=refused)
    results = remove_leftovers(fleet, "qwen", ["gpu01", "gpu02", "gpu03"], heard)
    assert [(name, reply["removed"]) for name, reply in answers(results).items()] == [
        ("gpu01", ["/a", "/b"]), ("gpu02", ["/a", "/b"]),
    ]  # fmt: skip
    assert failures(results) == {"gpu03": refused["gpu03"]}
    assert heard.texts("cleanup") == ["removed 2 paths", "removed 2 paths; kept /c: in use", "no answer"]


def test_a_host_that_never_waits_holds_the_others_no_longer_than_its_engines_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GATE_SECONDS", 0.3)
    monkeypatch.setattr(module, "SLACK_SECONDS", 1.0)
    monkeypatch.setattr(module, "RAY_GRACE_SECONDS", 0.1)
    read: list[str] = []

    def stop(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        while host.name == "gpu01":
            read.append("gpu01")
            yield None
        yield waiting(2)
        read.append("gpu02 went on")
        yield done(2)

    report = stop_deployment(FakeFleet(answering(stop=stop), ["gpu01", "gpu02"]), "qwen", 0.1, Heard())
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "failed"), ("gpu02", "stopped")]
    assert read.count("gpu02 went on") == 1
    assert read[-1] == "gpu01"  # which was given up later than the other went on
