"""What `status` hears of a server that does not answer as it should, from a real process and a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import restart_permits
from flagscale_deploy.remote.messages.run import WatchArguments
from flagscale_deploy.remote.messages.status import InspectArguments, InspectedServer
from flagscale_deploy.remote.programs import inspect, watch
from flagscale_deploy.remote.system.proc import start_ticks
from tests.component.remote.living import SLEEP, Home, Household, birth, wait_until
from tests.component.remote.stand_in import ENGINE, HEALTHY, StandIn, stand_in


def ask(home: Home, url: str, pid: int, **process: Any) -> tuple[InspectedServer, float]:
    """Return what is said of the one server of a record, and the seconds that took."""
    instance: Any = {"name": "q/0", "driver": home.host, "script": "serve.sh", "local_url": url, "served_name": "q"}
    listed: Any = [{"script": "serve.sh", "role": "engine", "alive": True, "stopped": False, **birth(pid), **process}]
    began = time.monotonic()
    args: InspectArguments = {"deployment": home.deployment, "host": home.host, "ask": True}
    asked = inspect.Inspection(args, {"instances": [instance]}, listed, {})
    return asked.instances["q/0"], time.monotonic() - began


def serving(home: Home, folder: Path, **behaviour: Any) -> AbstractContextManager[StandIn]:
    return stand_in(folder, f"{home.deployment}/r1", **behaviour)


def test_an_answer_that_is_no_http_is_told(home: Home, people: Household, tmp_path: Path) -> None:
    with serving(home, tmp_path, anything="220 mail ready\r\n") as server:
        state, _ = ask(home, server.url, people.python(SLEEP)[0])
    assert (state["health"], state["token"]) == (None, None)
    assert state["why"].startswith("it does not answer: not an HTTP answer: ")


def test_a_server_that_hangs_is_said_to_have_been_ready_and_to_be_stopped(
    home: Home, people: Household, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "HEALTH_SECONDS", 0.2)
    pid = people.python(SLEEP)[0]
    with serving(home, tmp_path, hold=True) as server:
        state, seconds = ask(home, server.url, pid, ready_at=1000.0, stopped=True)
        starting, _ = ask(home, server.url, pid)
    assert (state["alive"], state["health"], state["ready_at"]) == (True, None, 1000.0)
    assert state["why"] == (
        f"it does not answer: timed out; process {pid} is stopped (continue it with kill -CONT {pid})"
    )
    assert (starting["ready_at"], starting["why"]) == (None, "it does not answer: timed out")
    assert seconds < 20


def test_a_token_that_never_comes_to_its_end_is_not_waited_for(
    home: Home, people: Household, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of it comes before any socket's own deadline."""
    monkeypatch.setattr(inspect, "ANSWER_SECONDS", 1.0)
    endless: Any = {"replies": {"/health": HEALTHY}, "anything": "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"}
    with serving(home, tmp_path, **endless, repeat=" ", pause=0.05) as server:
        state, seconds = ask(home, server.url, people.python(SLEEP)[0])
    assert (state["health"], state["token"], state["why"]) == (200, None, "it does not answer within 1 s")
    assert seconds < 20


def test_a_stopped_process_is_seen(home: Home, people: Household) -> None:
    pid = people.python(SLEEP, f"{home.deployment}/r1")[0]
    home.record({"engine": pid})
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: home.run("inspect", ask=False)[0]["processes"][0]["stopped"])


def test_a_host_without_a_record_names_those_that_it_has(home: Home) -> None:
    for name in ("llama", "qwen"):
        Home(home.path, name, home.host).record()
    assert home.run("inspect", ask=False)[0]["others"] == ["llama", "qwen"]
    home.record()
    assert "others" not in home.run("inspect", ask=False)[0]


def started(home: Home, pid: int, ticks: int | None) -> WatchArguments:
    return {
        "deployment": home.deployment, "host": home.host, "pid": pid, "start_ticks": ticks,
        "log": "", "url": "", "model": "", "timeout": 1.0,
    }  # fmt: skip


def test_readiness_is_noted_of_the_very_process(home: Home, people: Household) -> None:
    first, other = (people.python(SLEEP)[0] for _ in range(2))
    record: Any = home.record({"engine": first, "router": other})
    began = time.time()
    record = watch.note_ready(record, started(home, first, start_ticks(first)))
    record = watch.note_ready(record, started(home, other, 1))
    assert began <= record["processes"][0]["ready_at"] <= time.time()
    assert "ready_at" not in record["processes"][1]


def test_without_a_token_only_health_and_metrics_are_asked(home: Home, people: Household, tmp_path: Path) -> None:
    pid = people.python(SLEEP)[0]
    with serving(home, tmp_path, replies=ENGINE) as server:
        home.record({"engine": pid}, instances=[{"name": "q/0", "driver": home.host, "script": "serve.sh",
                                                 "local_url": server.url, "served_name": "q"}])  # fmt: skip
        record = home.read_record()
        record["processes"][0]["script"] = "serve.sh"
        (home.state / "record.json").write_text(json.dumps(record))
        seen = [home.run("inspect", ask=True, **more)[0]["instances"]["q/0"] for more in ({}, {"token": False})]
        asked = [request.split()[1] for request in server.heard]
    assert [state["token"] for state in seen] == [True, None]
    assert [state["health"] for state in seen] == [200, 200]
    assert asked.count("/v1/completions") == 1
    assert asked.count("/health") == 2


def test_each_data_parallel_rank_is_asked_and_one_that_hangs_is_named(
    home: Home, people: Household, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "TOKEN_SECONDS", 0.3)
    listed: Any = [{"script": "serve.sh", "role": "engine", "alive": True, "stopped": False,
                    **birth(people.python(SLEEP)[0])}]  # fmt: skip
    args: InspectArguments = {"deployment": home.deployment, "host": home.host, "ask": True}
    silent = {"/health": HEALTHY}
    for replies, token, why in ((ENGINE, True, ""), (silent, False, "data-parallel rank 0 on h1: no answer: ")):
        with serving(home, tmp_path, replies=replies, hold=True) as server:
            instance: Any = {"name": "q/0", "driver": home.host, "script": "serve.sh", "local_url": server.url,
                             "served_name": "q", "ranks": [{"host": "h1", "data_rank": 0},
                                                           {"host": "h2", "data_rank": 4}]}  # fmt: skip
            state = inspect.Inspection(args, {"instances": [instance]}, listed, {}).instances["q/0"]
            asked = [heard.lower() for heard in server.heard if "/v1/completions" in heard]
        assert (state["health"], state["token"]) == (200, token)
        assert state["why"].startswith(why)
        assert sorted(re.findall(r"x-data-parallel-rank: (\d)", "".join(asked))) == ["0", "4"]


def test_what_the_supervisor_of_a_ray_node_says_is_reported(home: Home, people: Household) -> None:
    (pid,) = people.start(["sleep", "600"], f"{home.deployment}/r1", expect=0)
    entry = {"role": "ray-worker", "script": "ray_worker.sh", "log": "/l", **birth(pid)}
    home.record()
    home.record(processes=[entry])
    args = {"ask": True, "token": False}
    assert "ray_node" not in home.run("inspect", **args)[-1]
    state: Any = {"state": "restarting", "in_a_row": 1, "max": 5, "why": "lost its raylet; restart 1 of 5 in 1 s"}
    restart_permits.Files(home.state, "r1", "ray_worker.sh").write(state)
    assert home.run("inspect", **args)[-1]["ray_node"] == {**state, "supervised": True, "alive": False}
