"""`deploy.restart`: what dies after it was ready comes back by itself, is counted, is given up; `stop` wins always."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import PLACE, given, is_alive

Write = Callable[..., Serve]
CAUSE = "ValueError: the stand-in finds no weights in /models/tiny"
LOG = "home/.flagscale-deploy/{name}/node1/logs/vllm_serve_model0_0.log"


def restarting(backoff: Any = 0.1, **more: Any) -> dict[str, Any]:
    return {"restart": {"policy": "on-failure", "backoff": backoff, **more}}


@pytest.fixture
def doomed(lab: Lab) -> Iterator[str]:
    """A file that makes every stand-in of node1 die while it loads; gone after the test."""
    yield f"{PLACE}/doomed"
    lab.hosts[0].run(["rm", "-f", f"{PLACE}/doomed"])


def log_of(host: Host, served: Serve) -> str:
    return (host.directory / LOG.format(name=served.name)).read_text()


def running(lab: Lab, name: str) -> list[str]:
    return [f"{left.host}: {left.what}" for left in lab.leftovers(name) if left.kind != "directory"]


def back_again(operator: Operator, served: Serve, restarts: int) -> Callable[[], bool]:
    def ready() -> bool:
        status = operator("status", "--name", served.name, "--json", exits=None).json
        return status["state"] == "ready" and status["instances"][0]["restarts"] == restarts

    return ready


def test_an_engine_that_dies_comes_back_without_its_operator_and_is_counted(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served, host = serve(stand_in="forks", deploy=restarting()), lab.hosts[0]
    operator("run", "-c", served.config)
    first = given(host, served.port)
    host.run(["kill", "-9", str(first["pid"])])
    assert eventually(lambda: given(host, served.port)["pid"] != first["pid"])
    assert eventually(lambda: not any(is_alive(host, pid) for pid in first["children"]))
    assert eventually(back_again(operator, served, restarts=1))

    status = operator("status", "--name", served.name)
    assert re.search(r"model0/0\s+ready\s+node1\s+node1\[0\]\s+1, \d\d-\d\d ", status.out)
    told = log_of(host, served)
    assert re.search(r"\nflagscale-deploy \d{4}-.{14}: model0/0 was ended by SIGKILL after \d+ s; restart 1 of 5 in 0.1 s\n",
                     told)  # fmt: skip
    assert "ended 2 processes that it left" in told
    assert told.count("Application startup complete.") == 2, "what the first engine printed is there still"
    assert operator("call", "hello", "--name", served.name).out == "you said: hello\n"

    known = lab.processes(served.name)
    stopped = operator("stop", "--name", served.name)
    assert "node1: 4 processes ended, none left" in stopped.out
    assert [left for left in lab.leftovers(served.name, known) if left.kind != "directory"] == []
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, known) == []


def test_an_engine_that_dies_again_and_again_is_given_up_visibly(
    lab: Lab, operator: Operator, serve: Write, doomed: str
) -> None:
    served, host = serve(deploy=restarting(), envs={"STAND_IN_ERROR": CAUSE}), lab.hosts[0]
    operator("run", "-c", served.config)
    host.run(["touch", doomed])
    host.run(["kill", "-USR1", str(given(host, served.port)["pid"])])
    assert eventually(lambda: "gave up after 5 restarts" in log_of(host, served))
    status = operator("status", "--name", served.name, "--json", exits=1).json
    (instance,) = status["instances"]
    assert (instance["state"], instance["restarts"]) == ("gave up", 5)
    assert "gave up after 5 restarts" in instance["problem"]
    assert CAUSE in operator("status", "--name", served.name, exits=1).out
    assert CAUSE in operator("logs", "--diagnose", "--name", served.name).out
    assert lab.processes(served.name) == []
    operator("cleanup", "--name", served.name)


def test_what_was_never_ready_fails_the_run_and_is_not_restarted(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(stand_in="dies", deploy=restarting(), envs={"STAND_IN_ERROR": CAUSE}), lab.hosts[0]
    ended = operator("run", "-c", served.config, exits=5)
    assert CAUSE in ended.err
    assert "restart" not in log_of(host, served)
    assert running(lab, served.name) == []


def test_stop_ends_what_waits_to_be_restarted(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(deploy=restarting(backoff=600)), lab.hosts[0]
    operator("run", "-c", served.config)
    host.run(["kill", "-9", str(given(host, served.port)["pid"])])
    assert eventually(lambda: "restart 1 of 5 in 600 s" in log_of(host, served))
    status = operator("status", "--name", served.name, "--json", exits=1).json
    assert (status["state"], status["instances"][0]["state"]) == ("restarting", "restarting")
    known = lab.processes(served.name)
    assert len(known) == 1
    began = time.monotonic()
    operator("stop", "--name", served.name)
    assert time.monotonic() - began < 10
    assert [left for left in lab.leftovers(served.name, known) if left.kind != "directory"] == []
    assert operator("status", "--name", served.name, "--json").json["state"] == "stopped"


def test_what_reloads_is_restarting_and_is_stopped(lab: Lab, operator: Operator, serve: Write) -> None:
    served, host = serve(deploy=restarting()), lab.hosts[0]
    operator("run", "-c", served.config)
    before = given(host, served.port)["pid"]
    # The next life stops in the middle of its loading.
    script = host.directory / f"home/.flagscale-deploy/{served.name}/node1/scripts/vllm_serve_model0_0.sh"
    assert script.exists()
    host.run(["kill", "-9", str(before)])
    assert eventually(lambda: given(host, served.port)["pid"] != before)
    host.run(["kill", "-STOP", str(given(host, served.port)["pid"])])
    status = operator("status", "--name", served.name, "--json", exits=None).json
    if status["state"] != "unwell":  # it was stopped before it listened
        assert status["instances"][0]["problem"].startswith("loading: restart 1 of 5")
    operator("stop", "--name", served.name)
    assert running(lab, served.name) == []


def test_a_supervisor_that_is_killed_leaves_its_engine_serving_and_that_is_said(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served, host = serve(deploy=restarting()), lab.hosts[0]
    operator("run", "-c", served.config)
    engine = given(host, served.port)["pid"]
    leader = int(host.run(["ps", "-o", "ppid=", "-p", str(engine)]).stdout)
    host.run(["kill", "-9", str(leader)])
    status = operator("status", "--name", served.name, "--json").json
    assert status["instances"][0]["problem"] == "its supervisor is gone: it will not be started again"
    operator("stop", "--name", served.name)
    assert running(lab, served.name) == []


@pytest.mark.parametrize("seed", range(4))
def test_stop_wins_at_whatever_moment_an_engine_dies(lab: Lab, operator: Operator, serve: Write, seed: int) -> None:
    """Four engines die one after another around the moment at which `stop` begins on their hosts."""
    chance = random.Random(seed)
    served = serve(models=4, stand_in="forks", deploy=restarting(backoff=0.05, max=1000))
    operator("run", "-c", served.config)
    kill = "while sleep 0.0{at}; do pkill -9 -s 0 nothing-of-this-name; for pid in $(cat /proc/[0-9]*/stat 2>/dev/null"
    assert kill  # see below
    known = lab.processes(served.name)
    doors = [(host, served.ports[at]) for host in lab.hosts for at in range(4) if has(host, served.ports[at])]
    assert len(doors) == 4
    stopping = operator.start("stop", "--name", served.name)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        host, port = chance.choice(doors)
        host.run(["kill", "-9", str(given(host, port)["pid"])], check=False)
        if chance.random() < 0.3:
            host.run(["sleep", f"{chance.random() / 5:.3f}"])
    stopping.end(exits=0)
    assert [left for left in lab.leftovers(served.name, known) if left.kind != "directory"] == []
    assert not eventually(lambda: lab.processes(served.name), within=1.0)
    operator("cleanup", "--name", served.name)


def has(host: Host, port: int) -> bool:
    return host.run(["test", "-f", f"{PLACE}/{port}.json"], check=False).returncode == 0
