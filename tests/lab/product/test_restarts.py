"""`deploy.restart`: what dies after it was ready comes back by itself, is counted, is given up; `stop` wins always."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import PLACE, given, is_alive, is_started

Write = Callable[..., Serve]
CAUSE = "ValueError: the stand-in finds no weights in /models/tiny"
FIRST = "was ended by SIGKILL after \\d+ s; restart 1 of 5 in 0.1 s"


def restarting(backoff: Any = 0.1, **more: Any) -> dict[str, Any]:
    return {"restart": {"policy": "on-failure", "backoff": backoff, **more}, "timeouts": {"ready": 20, "stop": 2}}


@pytest.fixture
def doomed(lab: Lab) -> Iterator[str]:
    """Provide a file that makes every stand-in of node1 die while it loads; gone after the test."""
    yield f"{PLACE}/doomed"
    lab.hosts[0].run(["rm", "-f", f"{PLACE}/doomed"])


def state_of(host: Host, served: Serve) -> Any:
    return host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}"


def log_of(host: Host, served: Serve) -> str:
    return str((state_of(host, served) / "logs/vllm_serve_model0_0.log").read_text())


def left(lab: Lab, name: str, *processes: Any) -> list[str]:
    return [
        f"{leftover.host}: {leftover.what}"
        for leftover in lab.leftovers(name, *processes)
        if leftover.kind != "directory"
    ]


def test_an_engine_that_dies_comes_back_without_its_operator_and_is_counted(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served, host = serve(stand_in="forks", deploy=restarting()), lab.hosts[0]
    operator("run", "-c", served.config)
    first = given(host, served.port)
    host.run(["kill", "-9", str(first["pid"])])
    assert eventually(lambda: given(host, served.port)["pid"] != first["pid"])
    assert not any(is_alive(host, pid) for pid in first["children"])

    def answers() -> bool:
        return operator("call", "hello", "--name", served.name, exits=None).out == "you said: hello\n"

    assert eventually(answers)
    status = operator("status", "--name", served.name)
    assert re.search(r"model0/0\s+ready\s+node1\s+node1\[0\]\s+1, \d\d-\d\d ", status.out)
    log_text = log_of(host, served)
    assert re.search(r"\nflagscale-deploy \d{4}-\d\d-\d\d [:\d]{8}: model0/0 " + FIRST + "\n", log_text)
    assert "ended 2 remaining processes" in log_text
    assert log_text.count("Application startup complete.") == 2, "what the first engine printed is there still"
    processes = lab.processes(served.name)
    assert "node1: 4 processes ended, none left" in operator("stop", "--name", served.name).out
    assert left(lab, served.name, processes) == []
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []


def test_an_engine_that_dies_again_and_again_is_given_up_visibly(
    lab: Lab, operator: Operator, serve: Write, doomed: str
) -> None:
    served, host = serve(deploy=restarting(), envs={"STAND_IN_ERROR": CAUSE}), lab.hosts[0]
    operator("run", "-c", served.config)
    host.run(["touch", doomed])
    host.run(["kill", "-USR1", str(given(host, served.port)["pid"])])
    assert eventually(lambda: "gave up after 5 restarts" in log_of(host, served))
    (instance,) = operator("status", "--name", served.name, "--json", exits=1).json["instances"]
    assert (instance["state"], instance["restarts"]) == ("gave up", 5)
    assert "gave up after 5 restarts" in instance["problem"]
    shown = operator("status", "--name", served.name, exits=1).out
    assert "gave up" in shown
    assert CAUSE in shown
    assert CAUSE in operator("logs", "--diagnose", "--name", served.name).out
    assert lab.processes(served.name) == []
    operator("cleanup", "--name", served.name)


def test_what_was_never_ready_fails_the_run_and_is_not_restarted(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(stand_in="dies", deploy=restarting(), envs={"STAND_IN_ERROR": CAUSE}), lab.hosts[0]
    ended = operator("run", "-c", served.config, exits=5)
    assert CAUSE in ended.err
    assert "flagscale-deploy 20" not in log_of(host, served)
    assert left(lab, served.name) == []


def test_stop_ends_what_waits_to_be_restarted(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(deploy=restarting(backoff=600)), lab.hosts[0]
    operator("run", "-c", served.config)
    host.run(["kill", "-9", str(given(host, served.port)["pid"])])
    assert eventually(lambda: "restart 1 of 5 in 600 s" in log_of(host, served))
    status = operator("status", "--name", served.name, "--json", exits=1).json
    assert (status["state"], status["instances"][0]["state"]) == ("restarting", "restarting")
    processes = lab.processes(served.name)
    assert len(processes) == 1
    operator("stop", "--name", served.name)
    assert left(lab, served.name, processes) == []
    assert operator("status", "--name", served.name, "--json").json["state"] == "stopped"


def test_a_supervisor_that_is_killed_leaves_its_engine_serving_and_that_is_said(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served, host = serve(deploy=restarting()), lab.hosts[0]
    operator("run", "-c", served.config)
    engine = given(host, served.port)["pid"]
    leader = host.run(["ps", "-o", "ppid=", "-p", str(engine)]).stdout.strip()
    host.run(["kill", "-9", leader])
    (instance,) = operator("status", "--name", served.name, "--json").json["instances"]
    assert (instance["state"], instance["problem"]) == (
        "ready",
        "its supervisor is gone: it will not be restarted after a crash",
    )
    operator("stop", "--name", served.name)
    assert left(lab, served.name) == []


def test_stop_wins_at_whatever_moment_engines_die(lab: Lab, operator: Operator, serve: Write) -> None:
    """Four engines on two hosts die again and again, before and while `stop` ends them."""
    chance = random.Random(5)
    served = serve(models=4, stand_in="forks", deploy=restarting(backoff=0.05, max=1000))
    operator("run", "-c", served.config)
    processes = lab.processes(served.name)
    doors = [(host, port) for host in lab.hosts for port in served.ports if is_started(host, port)]
    assert len(doors) == 4
    stopping, until = operator.start("stop", "--name", served.name), time.monotonic() + 2.5
    while time.monotonic() < until:
        host, port = chance.choice(doors)
        host.run(["kill", "-9", str(given(host, port)["pid"])], check=False)
    stopping.end(exits=0)
    assert left(lab, served.name, processes) == []
    assert not eventually(lambda: lab.processes(served.name), within=1.0)
    operator("cleanup", "--name", served.name)
