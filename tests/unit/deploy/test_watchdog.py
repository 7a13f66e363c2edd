"""What is seen on hosts while engines start, from answers as `watch_ranks` and `ray_nodes` give them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.program_files import load_program
from flagscale_deploy.config.spec import ServeSpec, Timeouts
from flagscale_deploy.deploy import placement_watch, watchdog
from flagscale_deploy.deploy.placement_watch import TooFewGpusError
from flagscale_deploy.deploy.readiness import InstanceFailedError, wait_ready
from flagscale_deploy.deploy.stall import Stalls
from flagscale_deploy.deploy.watchdog import RankLostError
from flagscale_deploy.errors import DeployError, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan as make_plan
from flagscale_deploy.transport.base import Connection
from tests.fakes import FakeFleet, Output, silence_until
from tests.unit.deploy.given import HOSTS, PLAN, Heard, answering, started
from tests.unit.plan.given import TEMPLATES, inventory, seen

LOST = {"gone": [{"pid": 267, "part": "rank", "title": "ray::RayWorkerProc"}]}
READY = {"ready": True, "token": "x"}
Answer = Callable[[Host, dict[str, Any]], Iterable[Output]]


def wait(
    heard: Heard, *, watch: Answer, watch_ranks: Answer, stall: float = 0.2, plan: Plan = PLAN, **modules: Answer
) -> list[str]:
    fleet = FakeFleet(answering(watch=watch, watch_ranks=watch_ranks, **modules), HOSTS)
    wait_ready(plan, fleet, started(plan), Timeouts(ready=60.0, stall=stall), heard)
    return [call.module for call in fleet.calls]


def notes(heard: Heard) -> list[tuple[str, str]]:
    return [(event.host, event.text) for event in heard.of("serve", "note")]


def until(heard: Heard, text: str, then: Output) -> Iterator[Output]:
    """Silence until something has been said."""
    end = time.monotonic() + 60
    while not any(text in note for _, note in notes(heard)):
        assert time.monotonic() < end, notes(heard)
        yield None
    yield then


def forever(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    return silence_until(threading.Event(), 120)


def test_a_rank_that_dies_on_another_host_ends_the_wait_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.2)
    heard = Heard()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            yield LOST
        yield from silence_until(threading.Event(), 120)

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": ["ERROR 11-22 10:26:00 [core.py:1] KeyError: 'x'"]}
        yield from silence_until(threading.Event(), 120)

    began = time.monotonic()
    with pytest.raises(RankLostError) as raised:
        wait(heard, watch=watch, watch_ranks=ranks)
    assert time.monotonic() - began < 30
    assert (raised.value.host, raised.value.exit_code) == ("gpu02", 5)
    assert "ray::RayWorkerProc (process 267) ended before the deployment was ready" in str(raised.value)
    assert raised.value.quoted == ("gpu01: KeyError: 'x'",)  # a line of another host bears its name
    assert ("gpu02", "ray::RayWorkerProc (process 267) is gone") in notes(heard)


def test_a_rank_that_the_kernel_ended_for_want_of_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.2)
    heard = Heard()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            yield {**LOST, "oom": "the kernel has ended a process"}
        yield from silence_until(threading.Event(), 120)

    with pytest.raises(RankLostError) as raised:
        wait(heard, watch=forever, watch_ranks=ranks)
    assert "ended before the deployment was ready; the kernel has ended a process" in str(raised.value)
    assert "→ `journalctl -k` or `dmesg` on gpu02" in str(raised.value)
    assert ("gpu02", "ray::RayWorkerProc (process 267) is gone; the kernel has ended a process") in notes(heard)


@pytest.mark.parametrize(
    ("line", "blamed"),
    [("ray.exceptions.ActorDiedError: The actor died unexpectedly before", True), ("KeyError: 'x'", False)],
)
def test_an_engine_that_ends_because_of_it_says_so_itself(line: str, blamed: bool) -> None:
    heard = Heard()

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": [f"ERROR 11-22 10:26:00 [core.py:1] {line}"]}
        yield from until(heard, "is gone", {"dead": True})

    with pytest.raises(DeployError) as raised:
        wait(heard, watch=watch, watch_ranks=lambda *_: [LOST, *[None] * 1000])
    error = raised.value
    assert isinstance(error, InstanceFailedError)
    assert ("after gpu0" in str(error)) == blamed
    assert line in str(error)


def test_a_program_of_the_users_own_may_end_what_it_likes_but_not_ray(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    serve = ServeSpec("app", (), entrypoint="app.py", source=str(tmp_path / "app.yaml"), program_port=8123)
    plan = make_plan(Inputs(inventory(*HOSTS), serve, seen(*HOSTS), "run", TEMPLATES, load_program(serve)))
    heard = Heard()
    wait(
        heard,
        watch=lambda *_: until(heard, "is gone", {"ready": True, "at": ""}),
        watch_ranks=lambda *_: [LOST],
        plan=plan,
    )
    raylet = {"gone": [{"pid": 7, "part": "raylet", "title": "raylet"}]}
    with pytest.raises(RankLostError):
        wait(Heard(), watch=forever, watch_ranks=lambda *_: [raylet], plan=plan)


def test_hosts_are_watched_until_the_last_instance_is_ready() -> None:
    heard = Heard()
    modules = wait(heard, watch=lambda *_: [READY], watch_ranks=forever)
    assert sorted(modules) == ["watch", "watch_ranks", "watch_ranks"]
    assert notes(heard) == []


def test_a_host_whose_program_fails_is_said_and_ends_nothing() -> None:
    heard = Heard()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield RemoteError(host.name, "no memory for it") if host.name == "gpu02" else {}

    wait(heard, watch=lambda *_: until(heard, "no memory", READY), watch_ranks=ranks)
    assert notes(heard) == [("gpu02", "its processes cannot be watched: no memory for it")]


def losing(host: Host, *before: dict[str, Any], then: Answer, lost: list[str]) -> Iterable[Output]:
    """Return what is watched on gpu02: a connection that breaks once, and then another."""
    if host.name != "gpu02" or lost:
        yield from then(host, {})
    else:
        yield from before
        lost.append(host.name)
        yield UnreachableError(host.name, "the connection was lost")


def test_a_worker_s_connection_that_is_lost_is_made_again() -> None:
    heard, lost = Heard(), list[str]()
    wait(
        heard,
        watch=lambda *_: until(heard, "is back", READY),
        watch_ranks=lambda host, _: losing(host, still(0.0), then=forever, lost=lost),
    )
    assert notes(heard) == [
        ("gpu02", "the connection was lost; retrying for up to 30 s"),
        ("gpu02", "the connection is back"),
    ]


def test_what_ended_while_the_connection_was_lost_is_noticed() -> None:
    lost = list[str]()
    before, after = ({**still(0.0), "ranks": {"raylet": 1, "rank": number}} for number in (8, 0))
    with pytest.raises(RankLostError, match="gpu02: processes ended while its connection was lost: 8 × rank"):
        wait(
            Heard(),
            watch=forever,
            watch_ranks=lambda host, _: losing(host, before, then=lambda *_: [after, *[None] * 999], lost=lost),
        )


class Worker(FakeFleet):
    """Hosts of which gpu02 is lost for good once it was watched; `ready` is set then where its loss does no harm."""

    def fresh_connection(self, host: str) -> Connection:
        raise UnreachableError(host, "no answer")


def test_a_worker_that_stays_unreachable_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOST_SECONDS", 0.5)
    fleet = Worker(answering(watch=forever, watch_ranks=lambda host, _: losing(host, then=forever, lost=[])), HOSTS)
    began = time.monotonic()
    with pytest.raises(UnreachableError) as raised:
        wait_ready(PLAN, fleet, started(PLAN), Timeouts(ready=60.0), Heard())
    assert (raised.value.host, raised.value.exit_code) == ("gpu02", 3)
    assert "the connection was lost; not back after 0.5 s: no answer" in str(raised.value)
    assert time.monotonic() - began < 30


def test_a_run_that_is_ready_does_not_wait_for_a_connection_that_was_lost() -> None:
    heard = Heard()
    fleet = Worker(
        answering(
            watch=lambda *_: until(heard, "retrying", READY),
            watch_ranks=lambda host, _: losing(host, then=forever, lost=[]),
        ),
        HOSTS,
    )
    began = time.monotonic()
    wait_ready(PLAN, fleet, started(PLAN), Timeouts(ready=60.0), heard)
    assert time.monotonic() - began < 30


def still(seconds: float, *stopped: str, used: float | None = None) -> dict[str, Any]:
    group = {"read": seconds, "used": seconds if used is None else used, "stopped": list(stopped)}
    return {"still": {"": group}, "ranks": {}}


def test_a_load_that_stands_still_is_said_and_that_it_moves_again() -> None:
    heard = Heard()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield still(0.0)
        while not any("no progress on" in text for _, text in notes(heard)):
            yield still(31.0, *(["ray::RayWorkerProc"] if host.name == "gpu02" else []))
            yield None
        yield from silence_until(threading.Event(), 120)

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield from until(heard, "no progress on", {"lines": ["INFO loading"]})
        yield from until(heard, "makes progress again", READY)

    wait(heard, watch=watch, watch_ranks=ranks)
    texts = [text for _, text in notes(heard)]
    assert texts[0].startswith("no progress on gpu0")
    assert "no log line, no data read, no CPU time used for" in texts[0]
    assert texts[1:] == ["it makes progress again"]


def test_as_long_as_one_host_reads_nothing_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by 0.1 s with each report of the host that reads, after one of the host that does not."""
    clock = itertools.count()
    times, reports = [0.0], {"gpu01": 0, "gpu02": 0}
    monkeypatch.setattr(watchdog, "Stalls", partial(Stalls, clock=lambda: times[-1]))
    heard, over = Heard(), threading.Event()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        reads = host.name == "gpu02"
        while reports["gpu02"] < 50:
            if not reads or reports["gpu02"] < reports["gpu01"]:
                reports[host.name] += 1
                if reads:
                    times.append(0.1 * next(clock))
                yield still(0.1 if reads else 60.0)
            yield None
        over.set()
        yield from silence_until(threading.Event(), 120)

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield from silence_until(over)
        yield READY

    wait(heard, watch=watch, watch_ranks=ranks, stall=0.5)
    assert notes(heard) == []
    assert times[-1] > 4


def test_cpu_time_that_is_used_is_said_more_softly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capturing graphs and compiling log nothing for minutes, and compute; a rank that waits for another one spins."""
    times = [0.0]
    monkeypatch.setattr(watchdog, "Stalls", partial(Stalls, clock=lambda: times[-1]))
    heard, computes = Heard(), threading.Event()

    def ranks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            times.append(40.0)
            yield still(31.0, used=0.0)
            computes.set()
        yield from silence_until(computes)
        yield still(31.0, used=0.0 if host.name == "gpu02" else None)
        yield from silence_until(threading.Event(), 120)

    wait(heard, watch=lambda *_: until(heard, "no data read", READY), watch_ranks=ranks)
    ((_, text),) = notes(heard)
    assert text.startswith("no log line and no data read on gpu02 for ")
    assert text.endswith("; CPU is in use on gpu02: it compiles, or waits in a loop")


ASKS = "INFO 11-22 10:58:53 [ray_utils.py:607] No current placement group found. Creating a new placement group."
WAITS = "INFO 11-22 10:59:03 [ray_utils.py:468] Waiting for creating a placement group of specs for 10 seconds. \
specs=[{'node:10.0.0.1': 0.001, 'GPU': 1.0}, {'GPU': 1.0}]. Check `ray status`"
COUNT = {"nodes": {"10.0.0.1": 1, "10.0.0.2": 0}, "missing": [], "available": {"GPU": 1.0}}


@pytest.mark.parametrize(("line", "more"), [(ASKS, {"pending": 2.0}), (WAITS, {})], ids=["Ray says so", "vLLM says so"])
def test_gpus_that_ray_cannot_give_are_said_with_what_it_has(
    monkeypatch: pytest.MonkeyPatch, line: str, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(placement_watch, "PATIENCE_SECONDS", 0.05)
    heard = Heard()
    modules = wait(
        heard,
        watch=lambda *_: chain({"lines": [line]}, until(heard, "placement group", READY)),
        watch_ranks=forever,
        ray_nodes=lambda *_: [{**COUNT, **more}],
    )
    assert "ray_nodes" in modules
    assert notes(heard) == [
        ("gpu01", "the engine waits for its placement group: it needs 2 GPUs, Ray has 1 (10.0.0.1: 1, 10.0.0.2: 0), "
                  "1 of them free"),
    ]  # fmt: skip


def test_more_gpus_than_all_nodes_have_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_SECONDS", "ASK_AGAIN_SECONDS"):
        monkeypatch.setattr(placement_watch, name, 0.05)
    heard = Heard()
    with pytest.raises(TooFewGpusError, match=r"it needs 2 GPUs, Ray has 1 .*\n.*ask for fewer GPUs") as raised:
        wait(
            heard,
            watch=lambda *_: chain({"lines": [ASKS]}, silence_until(threading.Event(), 120)),
            watch_ranks=forever,
            ray_nodes=lambda *_: [{**COUNT, "pending": 2.0}],
        )
    assert (raised.value.host, raised.value.exit_code) == ("gpu01", 5)
    assert len(notes(heard)) == 1


def test_gpus_of_a_node_that_may_still_come_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_SECONDS", "ASK_AGAIN_SECONDS"):
        monkeypatch.setattr(placement_watch, name, 0.05)
    asked = iter([{**COUNT, "pending": 2.0, "missing": ["10.0.0.2"]}] * 4 + [{**COUNT, "pending": 0.0}])
    heard = Heard()
    wait(
        heard,
        watch=lambda *_: chain({"lines": [ASKS]}, until(heard, "Ray has assigned the GPUs", READY)),
        watch_ranks=forever,
        ray_nodes=lambda *_: [next(asked)],
    )


def chain(first: Output, rest: Iterable[Output]) -> Iterator[Output]:
    yield first
    yield from rest


def test_gpus_that_ray_gives_are_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_watch, "PATIENCE_SECONDS", 0.05)
    heard, called = Heard(), threading.Event()

    def nodes(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        called.set()
        yield {**COUNT, "pending": 0}

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": [ASKS]}
        yield from silence_until(called)
        yield READY

    wait(heard, watch=watch, watch_ranks=forever, ray_nodes=nodes)
    assert notes(heard) == []
