from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.program_files import load_program
from flagscale_deploy.config.spec import PoolSpec, ServeSpec, Timeouts
from flagscale_deploy.deploy.readiness import InstanceFailedError, wait_ready
from flagscale_deploy.errors import DeployError, HostError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan as make_plan
from tests.fakes import Exit, FakeFleet, Output, Stderr
from tests.unit.deploy.given import HOSTS, PLAN, Heard, answering, started
from tests.unit.plan.given import TEMPLATES, inventory, model, planned, seen, spec

LIMITS = Timeouts(ready=60.0, stall=0.3)
LOG = [
    "INFO 11-22 11:05:09 [api_server.py:1] vLLM API server version 0.32.0",
    "(EngineCore pid=7) INFO 11-22 11:05:10 [core.py:9] Initializing a V1 LLM engine (v0.32.0) with config: x",
    "(EngineCore pid=7) Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:05<00:05,  2.5s/it]",
    "(EngineCore pid=7) INFO 11-22 11:05:11 [gpu_model_runner.py:1] Model loading took 14.2 GiB",
    "(EngineCore pid=7) INFO 11-22 11:05:12 [kv_cache_utils.py:1] GPU KV cache size: 100,000 tokens",
    "INFO:     Application startup complete.",
]
DEAD = [
    "INFO 11-22 11:05:09 [api_server.py:1] vLLM API server version 0.32.0",
    "(EngineCore pid=7) ERROR 11-22 11:05:09 [core.py:100] KeyError: 'layers.0.mlp.weight'",
    "RuntimeError: Engine core initialization failed. See root cause above.",
]


def wait(watch: Any, plan: Plan = PLAN, heard: Heard | None = None) -> dict[str, float]:
    fleet = FakeFleet(answering(watch=watch), HOSTS)
    ready = wait_ready(plan, fleet, started(plan), LIMITS, heard or Heard())
    return {name: instance.seconds for name, instance in ready.items()}


def becomes_ready(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"lines": LOG[:3]}
    yield {"lines": LOG[3:]}
    yield {"healthy": True}
    yield {"ready": True, "token": " Hello"}


def test_ready_is_a_token_and_its_stages_are_told_on_the_way() -> None:
    heard = Heard()
    took = wait(becomes_ready, heard=heard)
    assert list(took) == ["qwen/0"]
    assert 0 <= took["qwen/0"] < 30
    texts = heard.texts("serve", "progress")
    assert "loading weights" in texts
    assert "weights loaded" in texts
    assert texts[-1] == "answers /health; asking for a token"
    assert [event.percent for event in heard.of("serve", "progress") if event.text == "loading weights"] == [50.0]
    assert [(event.text, event.host) for event in heard.of("serve", "done")] == [("ready", "gpu01")]


def test_progress_never_goes_back() -> None:
    """Ray hands on lines of other hosts late."""
    heard = Heard()

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": [LOG[4], LOG[2], LOG[3], LOG[4], LOG[0]]}
        yield {"ready": True, "token": "x"}

    wait(watch, heard=heard)
    assert heard.texts("serve", "progress") == ["allocating the KV cache"]


def test_the_watch_is_told_what_to_watch() -> None:
    fleet = FakeFleet(answering(watch=becomes_ready), HOSTS)
    wait_ready(PLAN, fleet, started(), LIMITS, Heard())
    (call,) = fleet.sent("watch")
    assert call.host == "gpu01"
    assert call.args == {
        "deployment": "qwen", "host": "gpu01", "pid": 100, "start_ticks": 7,
        "log": "/state/logs/vllm_serve_qwen_0.sh.log", "url": "http://127.0.0.1:4567", "model": "/models/qwen",
        "timeout": 60.0,
    }  # fmt: skip


def fails(watch: Any, plan: Plan = PLAN, heard: Heard | None = None) -> DeployError:
    with pytest.raises(DeployError) as raised:
        wait(watch, plan, heard)
    return raised.value


def test_a_dead_engine_ends_the_wait_with_its_own_error_lines() -> None:
    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": DEAD}
        yield {"dead": True}

    heard = Heard()
    error = fails(watch, heard=heard)
    assert isinstance(error, InstanceFailedError)
    assert error.host == "gpu01"
    assert error.quoted == ("KeyError: 'layers.0.mlp.weight'",)
    assert "qwen/0 ended" in str(error)
    assert "KeyError: 'layers.0.mlp.weight'" in str(error)
    assert "Engine core initialization failed" not in str(error)
    assert [event.host for event in heard.of("serve", "failed")] == ["gpu01"]


def test_somebody_else_on_the_port_ends_the_wait() -> None:
    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": LOG[:3]}
        yield {"foreign": "port 4567 is held by another user's process (uid 1001, pid 123)"}

    error = fails(watch)
    assert isinstance(error, InstanceFailedError)
    assert "qwen/0 cannot serve: port 4567 is held by another user's process (uid 1001, pid 123)" in str(error)
    assert error.remedy == "end that process (`ss -ltnp` on gpu01 shows it), or choose another port"


def test_an_engine_that_dies_without_an_error_shows_its_last_lines() -> None:
    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": ["one", "two", "three", "four"]}
        yield {"dead": True}

    error = fails(watch)
    assert isinstance(error, InstanceFailedError)
    assert error.quoted == ("two", "three", "four")


def test_a_time_that_runs_out_says_why_it_is_not_ready() -> None:
    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"timed_out": True, "why": "/health is 200, but a one-token completion fails: HTTP 500"}

    error = fails(watch)
    assert isinstance(error, InstanceFailedError)
    assert "is not ready after 60 s (/health is 200, but a one-token completion fails: HTTP 500)" in error.problem


KERNEL = "→ `journalctl -k` or `dmesg` on gpu01 shows whether the kernel killed it"
OOM = "the kernel has killed a process of this host for lack of memory since the run began"


@pytest.mark.parametrize(
    ("line", "oom", "text", "points"),
    [
        ("INFO loading", "", "and left no error in its log: most likely it was killed", True),
        ("INFO loading", OOM, f"s after its start; {OOM}", True),
        ("ValueError: no weights", "", "s after its start", False),
    ],
    ids=["kill -9", "out of memory", "an error of its own"],
)
def test_an_end_without_a_word_says_what_it_may_be_and_where_to_look(
    line: str, oom: str, text: str, points: bool
) -> None:
    error = fails(lambda *_: [{"lines": [line]}, {"dead": True, "oom": oom}])
    assert text in str(error)
    assert (KERNEL in str(error)) == points
    assert ("most likely" in str(error)) == (points and not oom)


def test_a_time_that_runs_out_names_the_setting_and_what_came_last() -> None:
    loading = {"lines": ["Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:10<00:30, 10s/it]"]}
    late = {"timed_out": True, "why": "refused"}
    error = fails(lambda *_: [loading, late])
    assert "is not ready after" in str(error)
    assert "→ the last step in its log was: loading weights; raise deploy.timeouts.ready" in str(error)
    assert "its log shows no step of its start; raise deploy.timeouts.ready" in str(fails(lambda *_: [late]))


def test_a_watch_that_ends_without_a_word_is_a_failure() -> None:
    assert "cannot be watched any more" in str(fails(lambda _host, _args: [{"lines": ["x"]}]))


def test_a_watch_that_fails_itself_is_its_hosts_error() -> None:
    error = fails(lambda _host, _args: [Stderr(b"No space left on device\n"), Exit(1)])
    assert isinstance(error, HostError)
    assert "watch: exit status 1: No space left on device" in str(error)


def test_a_lost_host_is_unreachable() -> None:
    error = fails(lambda _host, _args: [UnreachableError("gpu01", "the SSH connection was lost")])
    assert isinstance(error, UnreachableError)


TWO = planned(inventory(*HOSTS), spec(model("a", tp=8, port=1), model("b", tp=8, port=2)))
BESIDE = planned(inventory(*HOSTS), spec(model("a", tp=4, port=1), model("b", tp=4, port=2)))


@pytest.mark.parametrize("plan", [TWO, BESIDE], ids=["on two hosts", "on one host"])
def test_instances_are_awaited_at_the_same_time(plan: Plan) -> None:
    meeting = threading.Barrier(2)

    def watch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        meeting.wait(10)
        return becomes_ready(host, args)

    heard = Heard()
    assert sorted(wait(watch, plan, heard)) == ["a/0", "b/0"]
    assert sorted(heard.texts("serve", "done")) == ["a/0: ready", "b/0: ready"]


@pytest.mark.parametrize("plan", [TWO, BESIDE], ids=["on two hosts", "on one host"])
def test_the_death_of_one_ends_the_wait_for_all(plan: Plan) -> None:
    def watch(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if "_b_" in args["log"]:
            yield {"lines": DEAD}
            yield {"dead": True}
        end = time.monotonic() + 120
        while time.monotonic() < end:
            yield None

    began = time.monotonic()
    error = fails(watch, plan)
    assert time.monotonic() - began < 30
    assert "b/0 ended" in str(error)


def test_when_two_die_both_are_named() -> None:
    meeting = threading.Barrier(2)

    def watch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        meeting.wait(10)
        yield {"lines": [f"ValueError: {args['host']} is bad"]}
        yield {"dead": True}

    error = str(fails(watch, TWO))
    assert "a/0 ended" in error
    assert "b/0 ended" in error


def program(folder: Path, port: int | None) -> Plan:
    (folder / "app.py").write_text("")
    serve = ServeSpec("app", (), entrypoint="app.py", source=str(folder / "app.yaml"), program_port=port)
    return make_plan(Inputs(inventory(*HOSTS), serve, seen(*HOSTS), "run", TEMPLATES, load_program(serve)))


def far(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"ready": True, "at": "http://10.0.0.2:8123"}


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        ({"serves": False, "foreign": True, "why": "port 8123 is held by another user's process (uid 7)"}, "ss -ltnp"),
        ({"serves": False, "why": "http://10.0.0.2:8123: Connection refused"}, ""),
    ],
)
def test_a_program_on_another_host_is_verified_there(tmp_path: Path, reply: dict[str, Any], remedy: str) -> None:
    made = program(tmp_path, 8123)
    fleet = FakeFleet(answering(watch=far, serving=lambda _host, _args: [reply]), HOSTS)
    with pytest.raises(InstanceFailedError, match=r"app/0 does not serve on gpu02: ") as raised:
        wait_ready(made, fleet, started(made), LIMITS, Heard())
    assert reply["why"] in str(raised.value)
    assert (f"`{remedy}` on gpu02" in raised.value.remedy) == bool(remedy)
    (call,) = fleet.sent("serving")
    assert (call.host, call.args["address"]) == ("gpu02", "http://10.0.0.2:8123")


@pytest.mark.parametrize("at", ["http://10.0.0.9:8123", "http://[", "x" * 1000])
def test_a_program_serves_at_none_but_its_addresses(tmp_path: Path, at: str) -> None:
    error = str(fails(lambda _host, _args: [{"ready": True, "at": at}], program(tmp_path, 8123)))
    assert f"app/0 is said to serve at {at[:20]}" in error
    assert "which is none of its addresses" in error


def test_a_program_serves_at_the_host_that_answered(tmp_path: Path) -> None:
    made, heard = program(tmp_path, 8123), Heard()
    fleet = FakeFleet(answering(watch=far, serving=lambda _host, _args: [{"serves": True, "why": ""}]), HOSTS)
    assert wait_ready(made, fleet, started(made), LIMITS, heard)["app/0"].endpoint == "http://10.0.0.2:8123"
    assert heard.texts("serve", "done") == ["ready at http://10.0.0.2:8123"]
    (call,) = fleet.sent("watch")
    assert call.args["program"] == {
        "addresses": ["http://127.0.0.1:8123", "http://10.0.0.1:8123", "http://10.0.0.2:8123"]
    }


def test_a_program_that_has_done_its_work_is_no_failure(tmp_path: Path) -> None:
    made, heard = program(tmp_path, None), Heard()
    fleet = FakeFleet(answering(watch=lambda _host, _args: [{"finished": True}]), HOSTS)
    assert wait_ready(made, fleet, started(made), LIMITS, heard)["app/0"].finished
    assert heard.texts("serve", "done") == ["finished"]
    assert [step.may_end for stage in made.stages for step in stage.steps if step.detached] == [True]


def test_a_program_that_died_says_with_which_status(tmp_path: Path) -> None:
    error = fails(lambda _host, _args: [{"dead": True, "exit_status": 7}], program(tmp_path, 8123))
    assert re.search(r"app/0 ended \S+ s after its start with exit status 7", str(error))


APART = planned(
    inventory("gpu01", "gpu02"), spec(model(tp=8, prefill=PoolSpec(), decode=PoolSpec(engine_args={"seed": 1})))
)


def test_the_router_of_pools_is_asked_for_a_transfer_between_their_engines() -> None:
    fleet = FakeFleet(answering(watch=becomes_ready), HOSTS)
    ready = wait_ready(APART, fleet, started(APART), LIMITS, Heard())
    assert list(ready) == ["qwen/prefill/0", "qwen/decode/0", "qwen/router"]
    asked = {call.args["url"]: call.args.get("transfers") for call in fleet.sent("watch")}
    engines = ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert asked == {
        "http://127.0.0.1:8000": None,
        "http://127.0.0.1:30000": {"urls": engines, "trust": ""},
    }


def test_engines_that_count_nothing_are_not_asked_for_a_transfer() -> None:
    for flags in ({"disable-log-stats": True}, {"kv-connector": "MooncakeConnector"}):
        apart = model(tp=8, engine_args=flags, prefill=PoolSpec(), decode=PoolSpec())
        plan = planned(inventory("gpu01", "gpu02"), spec(apart))
        fleet = FakeFleet(answering(watch=becomes_ready), HOSTS)
        wait_ready(plan, fleet, started(plan), LIMITS, Heard())
        assert [call for call in fleet.sent("watch") if "transfers" in call.args] == []


def test_pools_without_a_transfer_are_named_with_their_hosts() -> None:
    def watch(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield from [{"untransferred": "a token came, but"}] if "transfers" in args else [{"ready": True, "token": "x"}]

    error = fails(watch, APART)
    assert isinstance(error, InstanceFailedError)
    assert "qwen/router brings no KV cache from prefill to decode (prefill on gpu01, decode on gpu02)" in str(error)
    assert "UCX_NET_DEVICES" in error.remedy
