"""What of a deployment is there, from answers as `remote/programs/inspect.py` gives them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import pytest

from flagscale_deploy.deploy import serving as serving_module
from flagscale_deploy.deploy.status import Status, look, summarize
from flagscale_deploy.deploy.token_looks import TokenLooks
from flagscale_deploy.errors import HostError, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering

NOW = 2000.0
INSTANCE = {
    "name": "qwen/0", "model": "qwen", "replica": 0, "driver": "gpu01", "hosts": ["gpu01", "gpu02"],
    "gpus": {"gpu01": [0], "gpu02": [0]},
    "port": 4567, "endpoint": "http://10.0.0.1:4567/v1", "local_url": "http://127.0.0.1:4567", "served_name": "tiny",
    "script": "vllm_serve_qwen_0.sh", "certificate": None,
}  # fmt: skip
RAY = {"nodes": {"10.0.0.1": 1, "10.0.0.2": 1}, "missing": [], "available": {}}
WELL = {"alive": True, "health": 200, "token": True, "why": "", "metrics": None, "restarts": None}


def record(*roles: str, **changed: Any) -> Any:
    return {
        "deployment": "qwen", "run_id": "run-1", "digest": "sha256:1", "head": "gpu01", "operator": "me@here",
        "started_at": 1000.0, "roles": list(roles), "gpus": [0], "versions": {"ray": "2.60.0"}, "instances": [INSTANCE],
        **changed,
    }  # fmt: skip


def process(role: str, pid: int, alive: bool = True) -> dict[str, Any]:
    return {
        "role": role, "pid": pid, "start_ticks": 7, "boot_id": "b", "log": "/l", "script": "s.sh", "alive": alive,
        "stopped": False,
    }  # fmt: skip


def head(**changed: Any) -> Any:
    alive = changed.pop("alive", True)
    processes = [process("ray-head", 1, alive), process("engine", 2, alive)]
    return {
        "record": record("ray-head", "ray-nodes", "engine"), "processes": processes, "live": 14,
        "instances": {"qwen/0": WELL}, "ray": RAY, "ranks": {"gcs_server": 1, "raylet": 1}, **changed,
    }  # fmt: skip


def worker(**changed: Any) -> Any:
    return {
        "record": record("ray-worker"), "processes": [process("ray-worker", 1)], "live": 6, "instances": {},
        "ray": None, "ranks": {"raylet": 1}, **changed,
    }  # fmt: skip


NOTHING: dict[str, Any] = {"record": None, "processes": [], "live": 0, "instances": {}, "ray": None, "ranks": {}}
LOST = UnreachableError("gpu02", "no answer")


def status(first: Any, second: Any) -> Status:
    return summarize("qwen", "gpu01", {"gpu01": first, "gpu02": second}, NOW)


def test_ready_is_what_answers_with_every_node_there() -> None:
    current = status(head(), worker())
    assert (current.state, current.exit_code, current.live_processes) == ("ready", 0, 20)
    assert (current.run_id, current.digest, current.head, current.operator) == ("run-1", "sha256:1", "gpu01", "me@here")
    (instance,) = current.instances
    assert (instance.state, instance.endpoint, instance.served_name) == ("ready", "http://10.0.0.1:4567/v1", "tiny")
    assert [(host.host, host.state, host.processes, host.uptime) for host in current.hosts] == [
        ("gpu01", "running", 14, 1000.0), ("gpu02", "running", 6, 1000.0),
    ]  # fmt: skip


ON_HEAD = {"gcs_server": 1, "raylet": 1, "rank": 1}
HANGS = {**WELL, "health": None, "token": None, "why": "it does not answer: timed out"}
UNANSWERED = {"qwen/0": {**WELL, "token": None, "why": "it does not answer: timed out"}}


FAILURE = {"at": 1400.0, "cause": "gpu01: no space left", "remedy": "make room"}


def gone(record_: dict[str, Any]) -> dict[str, Any]:
    return {**NOTHING, "record": {**record_, "stopped_at": 1500.0}}


STATES: dict[str, tuple[dict[str, Any] | HostError, dict[str, Any] | HostError, str, str, int]] = {
    "a node is missing": (
        head(ray={"nodes": {"10.0.0.1": 1}, "missing": ["10.0.0.2: no node"]}), worker(), "unwell", "ready", 1),
    "the server does not answer yet": (
        head(instances={"qwen/0": {**WELL, "health": None, "token": None, "why": "refused"}}), worker(),
        "starting", "starting", 1),
    "health without a token": (
        head(instances={"qwen/0": {**WELL, "token": False, "why": "HTTP 500"}}), worker(), "unwell", "unwell", 1),
    "the engine is gone": (
        head(alive=False, instances={"qwen/0": {**WELL, "alive": False, "why": "its process is gone"}}), worker(),
        "dead", "dead", 1),
    "everything on the worker is gone": (head(), worker(live=0), "unwell", "ready", 1),
    "the worker cannot be reached": (head(), LOST, "UNKNOWN", "ready", 3),
    "the driver cannot be reached": (LOST, worker(), "UNKNOWN", "UNKNOWN", 3),
    "the worker's raylet is gone, /health is 200": (
        head(ranks=ON_HEAD), worker(ranks={"rank": 1}), "unwell", "unwell", 1),
    "the head of Ray is gone, /health is 200": (
        head(ranks={"raylet": 1, "rank": 1}, ray={"why": "gcs_server is gone"}), worker(ranks={"raylet": 1, "rank": 1}),
        "unwell", "unwell", 1),
    "the engine has died behind its server": (
        head(instances={"qwen/0": {**WELL, "health": 503, "token": None, "why": "/health answers 503"}}), worker(),
        "unwell", "unwell", 1),
    "no token comes": (head(instances=UNANSWERED), worker(), "unwell", "unwell", 1),
    "it was ready, and hangs": (
        head(instances={"qwen/0": {**HANGS, "ready_at": 1500.0}}), worker(), "unwell", "unwell", 1),
    "it loads, and listens late": (head(instances={"qwen/0": HANGS}), worker(), "starting", "starting", 1),
    "another user has its port while it loads": (
        head(instances={"qwen/0": {**HANGS, "foreign": True, "why": "port 4567 is held"}}), worker(),
        "unwell", "unwell", 1),
    "stopped": (gone(record("engine")), gone(record("ray-worker")), "stopped", "stopped", 0),
    "its run failed": (
        gone(record("engine", failure=FAILURE)), gone(record("ray-worker", failure=FAILURE)), "failed", "stopped", 1),
    "its run failed, and a host was lost": (gone(record("engine", failure=FAILURE)), LOST, "UNKNOWN", "stopped", 3),
    "stopped, but one host has survivors": (
        gone(record("engine")), {**gone(record("ray-worker")), "live": 2}, "leftovers", "stopped", 1),
    "stopped, one host UNKNOWN": (gone(record("engine")), LOST, "UNKNOWN", "stopped", 3),
    "the driver's record is lost": ({**NOTHING, "live": 3}, worker(), "UNKNOWN", "UNKNOWN", 3),
    "the head was restarted": (
        {**head(alive=False, live=0, ray=None), "instances": {}}, worker(), "dead", "UNKNOWN", 1),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "state", "instance", "code"), STATES.values(), ids=STATES.keys())
def test_states(
    first: dict[str, Any] | HostError, second: dict[str, Any] | HostError, state: str, instance: str, code: int
) -> None:
    current = status(first, second)
    assert (current.state, current.exit_code) == (state, code)
    assert [server.state for server in current.instances] == [instance]


def test_a_worker_without_its_raylet_is_named_beside_the_instance_that_needs_it() -> None:
    current = status(head(ranks=ON_HEAD), worker(ranks={"rank": 1}))
    assert current.instances[0].problem == "Ray's raylet is gone on gpu02"
    assert [host.problem for host in current.hosts] == ["", "Ray's raylet is gone"]
    assert not current.well


NODE = {"state": "restarting", "in_a_row": 1, "max": 5, "last_exit": "lost its raylet", "supervised": True,
        "why": "lost its raylet; restart 1 of 5 in 1 s"}  # fmt: skip
GAVE_UP = {"state": "gave up", "supervised": False, "why": "lost its raylet; gave up after 5 restarts"}
AWAY = "lost its raylet; waiting for gpu01 (Ray's head at 10.0.0.1:6379, away for 40 s)"


@pytest.mark.parametrize(
    ("node", "of_host", "of_instance"),
    [
        (
            {},
            "Ray is restarting: it lost its raylet; restart 1 of 5 in 1 s",
            "Ray on gpu02 is restarting: it lost its raylet; restart 1 of 5 in 1 s",
        ),
        (
            {"state": "running"},
            "Ray is restarting (1 of 5): it lost its raylet",
            "Ray on gpu02 is restarting (1 of 5): it lost its raylet",
        ),
        ({"why": AWAY}, f"Ray is restarting: it {AWAY}", f"Ray on gpu02 is restarting: it {AWAY}"),
        (
            {"state": "running", "in_a_row": 0},
            "Ray is restarting: it lost its raylet",
            "Ray on gpu02 is restarting: it lost its raylet",
        ),
        (
            GAVE_UP,
            "Ray's raylet is gone: lost its raylet; gave up after 5 restarts",
            "Ray's raylet is gone on gpu02: lost its raylet; gave up after 5 restarts",
        ),
        ({"supervised": False}, "Ray's raylet is gone", "Ray's raylet is gone on gpu02"),
    ],
)
def test_a_ray_node_that_is_restarted_or_given_up_is_shown(
    node: dict[str, Any], of_host: str, of_instance: str
) -> None:
    current = status(head(ranks=ON_HEAD), worker(ranks={"rank": 1}, ray_node={**NODE, **node}))
    assert current.instances[0].problem == of_instance
    assert [host.problem for host in current.hosts] == ["", of_host]
    assert not current.well


@pytest.mark.parametrize(("state", "live"), [("restarting", True), ("gave up", False)])
def test_an_instance_that_lacks_a_ray_node_names_why_that_is_gone(state: str, live: bool) -> None:
    """Its own supervisor knows only that Ray lacks a node: of the hosts, the operator alone sees all."""
    why = "Ray lacks 10.0.0.2: no node, after 180 s"
    gone = {**SUPERVISED, "state": state, "supervised": live, "alive": False, "why": why}
    ended = {"alive": False, "token": None, "health": None, "why": "gone", "restarts": gone}
    lost = worker(live=0, ranks={}, ray_node={**NODE, **GAVE_UP}, processes=[process("ray-worker", 1, False)])
    current = status(head(ranks=ON_HEAD, instances={"qwen/0": {**WELL, **ended}}), lost)
    cause = "Ray's raylet is gone on gpu02: lost its raylet; gave up after 5 restarts"
    assert (current.instances[0].state, current.instances[0].problem) == (state, f"{why}; {cause}")
    assert current.hosts[1].problem == cause.replace(" on gpu02", "")


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ({"rank": 1}, {}, "gpu02 has 0 of 1 ranks; it does not answer: timed out"),
        ({"rank": 1}, {"rank": 1}, "it does not answer: timed out"),
        ({}, {}, "it does not answer: timed out"),
    ],
    ids=["one is gone", "all are there", "names that are not known"],
)
def test_a_host_that_lacks_ranks_is_named_where_no_token_comes(
    first: dict[str, int], second: dict[str, int], problem: str
) -> None:
    raylet = {"raylet": 1}
    current = status(
        head(ranks={"gcs_server": 1, **raylet, **first}, instances=UNANSWERED), worker(ranks={**raylet, **second})
    )
    assert (current.instances[0].state, current.instances[0].problem) == ("unwell", problem)


def test_an_engines_figures_are_shown_and_a_full_cache_with_requests_that_wait_is_said() -> None:
    for used, waiting, problem in ((0.995, 3, "its KV cache is full (100%), 3 requests waiting"), (0.995, 0, ""),
                                   (0.5, 3, "")):  # fmt: skip
        metrics = {"running": 8.0, "waiting": waiting, "kv_cache": used}
        current = status(head(instances={"qwen/0": {**WELL, "metrics": metrics}}), worker())
        assert (current.state, current.instances[0].problem) == ("ready", problem)
        shown: Any = current.json()
        assert shown["instances"][0]["metrics"] == metrics


def test_a_router_counts_like_an_instance_and_is_the_entrance() -> None:
    router = {
        **INSTANCE,
        "name": "qwen/router",
        "replica": None,
        "gpus": {},
        "hosts": ["gpu01"],
        "endpoint": "http://r",
    }
    recorded = record("ray-head", "engine", routers=[router])
    well = {"qwen/0": WELL, "qwen/router": WELL}
    current = status(head(record=recorded, instances=well), worker())
    assert current.state == "ready"
    assert [(server.name, server.replica, server.endpoint) for server in current.entrances] == [
        ("qwen/router", None, "http://r")
    ]
    late = {**WELL, "health": None, "token": None, "why": "refused"}
    assert status(head(record=recorded, instances={**well, "qwen/router": late}), worker()).state == "starting"
    gate = {**router, "name": "gate", "model": "", "endpoint": "http://g"}
    recorded = record("ray-head", "engine", routers=[router, gate])
    current = status(head(record=recorded, instances={**well, "gate": WELL}), worker())
    assert (current.state, current.endpoints, current.models) == ("ready", ("http://g",), ("tiny",))
    assert status(head(record=recorded, instances={**well, "gate": late}), worker()).state == "starting"


def test_nothing_recorded_is_absent() -> None:
    current = status(NOTHING, NOTHING)
    assert (current.state, current.exit_code, current.instances, current.run_id) == ("absent", 0, (), None)


def test_processes_without_any_record_are_leftovers() -> None:
    current = status({**NOTHING, "live": 3}, NOTHING)
    assert (current.state, current.exit_code, current.live_processes) == ("leftovers", 1, 3)
    assert [host.state for host in current.hosts] == ["running", "absent"]


def test_nobody_reached_is_unknown_and_not_absent() -> None:
    current = status(UnreachableError("gpu01", "no answer"), LOST)
    assert (current.state, current.exit_code) == ("UNKNOWN", 3)
    assert [host.problem for host in current.hosts] == ["no answer", "no answer"]


def test_a_failing_program_is_unknown_too() -> None:
    assert status(RemoteError("gpu01", "inspect: exit status 1"), worker()).state == "UNKNOWN"


def test_the_newest_record_tells_what_the_deployment_is() -> None:
    old = {**NOTHING, "record": record("engine", run_id="run-0", started_at=1.0, instances=[], stopped_at=5.0)}
    current = status(head(), old)
    assert current.run_id == "run-1"
    assert len(current.instances) == 1


def test_a_lost_host_of_an_instance_is_named() -> None:
    assert status(head(), LOST).instances[0].problem == "gpu02 cannot be reached"


def test_engine_processes_that_are_gone_are_counted() -> None:
    current = status(
        head(alive=False, instances={"qwen/0": {**WELL, "alive": False, "why": "its process is gone"}}), worker()
    )
    assert current.hosts[0].problem == "1 engine process gone"
    assert current.instances[0].problem == "its process is gone"


def test_a_clock_that_was_set_back_makes_no_crash() -> None:
    assert summarize("qwen", "gpu01", {"gpu01": head()}, now=1.0).hosts[0].uptime is not None


def test_it_is_json() -> None:
    content = json.loads(json.dumps(status(head(), LOST).json()))
    assert content["schema"] == 1
    assert content["state"] == "UNKNOWN"
    assert content["hosts"][1] == {
        "host": "gpu02", "state": "UNKNOWN", "roles": [], "processes": 0, "gpus": [], "uptime": None, "versions": None,
        "problem": "no answer",
    }  # fmt: skip
    assert content["instances"][0]["gpus"] == {"gpu01": [0], "gpu02": [0]}


def test_all_hosts_are_asked() -> None:
    def inspect(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield head() if host.name == "gpu01" else worker()

    fleet = FakeFleet(answering(inspect=inspect), ["gpu01", "gpu02"])
    assert look(fleet, "qwen", "gpu01", now=NOW) == status(head(), worker())
    assert {(call.args["host"], call.args["ask"]) for call in fleet.calls} == {("gpu01", True), ("gpu02", True)}
    look(fleet, "qwen", "gpu01", ask=False)
    assert fleet.calls[-1].args["ask"] is False


def test_looks_of_a_watcher_ask_for_a_token_every_30_s_and_where_health_has_changed() -> None:
    now, health, token = [0.0], [200], [True]
    asked: list[bool] = []

    def inspect(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        asked.append(args.get("token", True))
        seen = {**WELL, "health": health[0], "token": token[0] if asked[-1] and health[0] == 200 else None, "why": "x"}
        yield head(instances={"qwen/0": seen})

    fleet, tokens = FakeFleet(answering(inspect=inspect), ["gpu01"]), TokenLooks(lambda: now[0])

    def state_at(seconds: float) -> str:
        now[0] = seconds
        return look(fleet, "qwen", "gpu01", tokens=tokens, now=NOW).instances[0].state

    assert [state_at(at) for at in (0, 5, 29)] == ["ready"] * 3
    token[0] = False
    assert [state_at(at) for at in (29.5, 30, 35)] == ["ready", "unwell", "unwell"]
    token[0], health[0] = True, 503
    assert [state_at(at) for at in (40, 45)] == ["unwell", "unwell"]
    health[0] = 200
    assert [state_at(at) for at in (75.5, 80)] == ["ready", "ready"]
    assert asked == [True, False, False, False, True, False, False, True, True, False]


PROGRAM = {
    **INSTANCE, "name": "app/0", "engine": "program", "endpoint": "http://10.0.0.1:8123",
    "addresses": {
        "http://127.0.0.1:8123": "http://10.0.0.1:8123", "http://10.0.0.1:8123": "http://10.0.0.1:8123",
        "http://10.0.0.2:8123": "http://far",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("reported", "state", "overall", "endpoint", "code"),
    [
        ({"alive": True, "token": True, "at": "http://10.0.0.2:8123"}, "ready", "ready", "http://far", 0),
        ({"alive": True, "token": False, "at": None, "why": "refused"}, "starting", "starting", PROGRAM["endpoint"], 1),
        ({"alive": False, "finished": True}, "finished", "finished", PROGRAM["endpoint"], 0),
        ({"alive": False, "why": "it ended with exit status 7"}, "dead", "dead", PROGRAM["endpoint"], 1),
    ],
)
def test_a_program_serves_finishes_or_dies(
    reported: dict[str, Any], state: str, overall: str, endpoint: str, code: int
) -> None:
    answer = {"health": None, "token": None, "why": "", **reported}
    recorded = record("ray-head", "engine", instances=[PROGRAM])
    processes = [{"role": "engine", "pid": 2, "alive": reported["alive"]}]
    current = status(head(record=recorded, instances={"app/0": answer}, processes=processes), worker())
    (instance,) = current.instances
    assert (instance.state, instance.problem, instance.endpoint) == (state, answer["why"], endpoint)
    assert (current.state, current.exit_code) == (overall, code)
    assert ("gone" in current.hosts[0].problem) == (state == "dead")


FOREIGN = "port 8123 is held by another user's process (uid 7)"
NO_HOST = "no host verifies that it serves at http://10.0.0.2:8123"


@pytest.mark.parametrize(
    ("reply", "state", "problem"),
    [
        ({"serves": True, "why": ""}, "ready", ""),
        ({"serves": False, "foreign": True, "why": FOREIGN}, "unwell", FOREIGN),
        ({"serves": False, "why": ""}, "starting", NO_HOST),
        (LOST, "starting", f"{NO_HOST}; gpu02 cannot be asked: no answer"),
    ],
)
def test_a_program_that_serves_on_another_host_is_verified_there(reply: Any, state: str, problem: str) -> None:
    server = {**WELL, "health": None, "at": "http://10.0.0.2:8123"}
    recorded = record("ray-head", instances=[PROGRAM | {"hosts": ["gpu01", "gpu02"]}], ports={"app/0": 8123})
    replies = {
        "gpu01": head(record=recorded, instances={"app/0": server}),
        "gpu02": worker(record={**recorded, "roles": ["ray-worker"]}),
    }

    def serving(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if isinstance(reply, HostError):
            raise reply
        yield reply

    fleet = FakeFleet(answering(inspect=lambda host, _args: [replies[host.name]], serving=serving), ["gpu01", "gpu02"])
    (instance,) = look(fleet, "qwen", "gpu01", now=NOW).instances
    assert (instance.state, instance.problem) == (state, problem)
    assert instance.endpoint == ("http://far" if state == "ready" else PROGRAM["endpoint"])
    assert [call.host for call in fleet.sent("serving")] == ["gpu02"]


def test_a_head_with_many_programs_on_a_host_that_does_not_reply_is_not_waited_for_once_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "ALL_SECONDS", 0.5)
    server = {**WELL, "health": None, "at": "http://10.0.0.2:8123"}
    programs = [PROGRAM | {"name": f"app/{number}", "hosts": ["gpu01", "gpu02"]} for number in range(50)]
    recorded = record("ray-head", instances=programs, ports={"app": 8123})
    inspected = head(record=recorded, instances={program["name"]: server for program in programs})

    def serving(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield from [None] * 200
        yield {"serves": False, "why": ""}

    def inspect(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield inspected if host.name == "gpu01" else worker(record=recorded)

    began = time.monotonic()
    status = look(FakeFleet(answering(inspect=inspect, serving=serving), ["gpu01", "gpu02"]), "qwen", "gpu01", now=NOW)
    assert time.monotonic() - began < 30
    assert {instance.state for instance in status.instances} == {"starting"}


SUPERVISED: dict[str, Any] = {
    "state": "running", "restarts": 0, "in_a_row": 0, "max": 5, "last_restart": None, "last_exit": "", "healthy": True,
    "why": "", "supervised": True, "alive": True,
}  # fmt: skip
DIED = "was ended by SIGKILL after 9 s; restart 2 of 5 in 2 s"
HUNG = "hung 2 min: 2 requests running and no token since 14:02:11"
RESTARTS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "it never died": ({}, {}, "ready", "ready", ""),
    "it came back": (
        {"restarts": 2, "in_a_row": 2, "last_restart": 1500.0, "evidence": "20261130-140211-qwen-0"}, {},
        "ready", "ready", ""),
    "it waits": (
        {"state": "restarting", "in_a_row": 2, "healthy": False, "why": DIED, "alive": False},
        {"alive": False, "token": None, "health": None, "why": "gone"}, "restarting", "restarting", DIED),
    "it loads again": (
        {"in_a_row": 2, "restarts": 2, "healthy": False, "last_exit": "was ended by SIGKILL"},
        {"token": None, "health": None, "why": "it does not answer"}, "restarting", "restarting",
        "loading after restart 2 of 5 (was ended by SIGKILL)"),
    "it hangs, and its evidence is kept": (
        {"state": "restarting", "healthy": False, "why": HUNG}, {"token": None, "health": 200, "why": "timed out"},
        "restarting", "restarting", HUNG),
    "it hung, and waits": (
        {"state": "restarting", "in_a_row": 1, "healthy": False, "why": f"{HUNG} → …", "alive": False},
        {"alive": False, "token": None, "health": None, "why": "gone"}, "restarting", "restarting", f"{HUNG} → …"),
    "it was given up": (
        {"state": "gave up", "restarts": 5, "alive": False, "supervised": False, "why": "gave up after 5 restarts"},
        {"alive": False, "token": None, "health": None, "why": "its process is gone"}, "dead", "gave up",
        "gave up after 5 restarts"),
    "its supervisor is gone, and it is not": (
        {"supervised": False}, {}, "ready", "ready", "its supervisor is gone: it will not be restarted after a crash"),
    "its supervisor is gone, and it hangs": (
        {"supervised": False}, {"token": None, "health": 200, "why": "timed out"}, "unwell", "unwell",
        "timed out; its supervisor is gone: it will not be restarted after a crash"),
    "both are gone": (
        {"supervised": False, "alive": False}, {"alive": False, "token": None, "health": None, "why": "gone"},
        "dead", "dead", "gone"),
    "it has hung since": (
        {"in_a_row": 1, "restarts": 1}, {"token": None, "health": 503, "why": "/health answers 503"},
        "unwell", "unwell", "/health answers 503"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTARTS)
def test_restarts_are_told_as_they_are(case: str) -> None:
    supervised, reported, overall, state, problem = RESTARTS[case]
    answer = head(instances={"qwen/0": {**WELL, **reported, "restarts": {**SUPERVISED, **supervised}}})
    current = status(answer, worker())
    (instance,) = current.instances
    assert (current.state, instance.state, instance.problem) == (overall, state, problem)
    assert instance.restarts == supervised.get("restarts", 0)
    assert instance.last_restart == supervised.get("last_restart")
    assert instance.evidence == supervised.get("evidence", "")
    assert instance.restart_reason == supervised.get("last_exit", "")
    assert current.well == (state == "ready")
    assert current.exit_code == (0 if state == "ready" else 1)


def test_without_a_supervisor_nothing_is_counted() -> None:
    (instance,) = status(head(), worker()).instances
    assert (instance.restarts, instance.last_restart) == (None, None)


def test_names_of_others_are_names_and_not_without_end() -> None:
    absent: dict[str, Any] = {"record": None, "processes": [], "live": 0, "ranks": {}, "instances": {}, "ray": None}
    replies: Any = {
        "gpu01": {**absent, "others": ["b", "a\n→ run this", "../x"]},
        "gpu02": {**absent, "others": [f"n{at}" for at in range(500)]},
    }
    seen = summarize("qwen", "gpu01", replies, 0.0)
    assert seen.state == "absent"
    assert "b" in seen.others
    assert all(name.isalnum() for name in seen.others)
    assert len(seen.others) <= 101


def test_many_instances_on_many_hosts_cost_no_more_than_their_record() -> None:
    """As one host may send them in its reply: 100,000 hosts are looked through once, and not for each instance."""
    instances = [INSTANCE | {"name": f"q/{number}", "hosts": ["", ""]} for number in range(3000)]
    many = INSTANCE | {"hosts": ["gpu01", "gpu02"] * 50_000}
    recorded = record("ray-head", "ray-nodes", "engine", instances=[*instances, many])
    began = time.thread_time()
    result = status(head(record=recorded), worker(ranks={}))
    assert time.thread_time() - began < 30
    assert all(len(instance.problem) < 1000 for instance in result.instances)


CHANGE = {
    "run_id": "c1",
    "base": "r1",
    "groups": ["qwen/0"],
    "done": [],
    "secrets": False,
    "step": "start",
    "operator": "me@here",
    "at": 1500.0,
}


def changed(reply: Any, change: Any = CHANGE, **record: Any) -> Any:
    return {**reply, "record": {**reply["record"], "change": change, **record}}


def test_a_deployment_that_is_changed_is_not_ready_and_tells_what_is_changed() -> None:
    current = status(changed(head()), changed(worker()))
    assert (current.state, current.exit_code, current.change) == ("changing", 1, CHANGE)
    assert current.instances[0].state == "ready"
    assert current.well
    assert json.loads(json.dumps(current.json()))["change"] == CHANGE


def test_a_deployment_is_changing_while_a_group_of_it_loads() -> None:
    current = status(changed(head(instances={"qwen/0": HANGS})), changed(worker()))
    assert (current.state, current.instances[0].state) == ("changing", "starting")


def test_a_group_that_is_changed_is_not_dead_while_it_does_not_run() -> None:
    gone = {"qwen/0": {**WELL, "alive": False, "token": None, "why": "its process is gone"}}
    current = status(changed(head(instances=gone)), changed(worker()))
    assert (current.state, current.instances[0].state) == ("changing", "changing")
    other = status(changed(head(instances=gone), {**CHANGE, "groups": ["qwen/1"]}), worker())
    assert (other.state, other.instances[0].state) == ("dead", "dead")


def test_a_host_with_nothing_but_what_is_changed_is_not_dead() -> None:
    idle = changed(worker(processes=[], live=0), processes=[])
    current = status(changed(head()), idle)
    assert (current.state, [host.state for host in current.hosts]) == ("changing", ["running", "stopped"])


def test_records_may_differ_while_a_deployment_is_changed() -> None:
    both = {"hosts": ["gpu01", "gpu02"]}
    behind = {**worker(), "record": {**worker()["record"], **both, "instances": []}}
    plain = {**head(), "record": {**head()["record"], **both}}
    assert status(plain, behind).hosts[1].problem == "its record differs from gpu01's (instances)"
    current = status(changed(head(), **both), behind)
    assert [host.problem for host in current.hosts] == ["", ""]


def test_what_another_host_says_is_changed_counts_for_nothing() -> None:
    both = {"hosts": ["gpu01", "gpu02"]}
    plain = {**head(), "record": {**head()["record"], **both}}
    current = status(plain, changed(worker(), **both, instances=[]))
    assert (current.state, current.change) == ("ready", None)
    assert current.hosts[1].problem == "its record differs from gpu01's (instances)"
