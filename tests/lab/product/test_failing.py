"""Runs that don't end ready: the cause is shown at once, logs are kept, and nothing is left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import PLACE

Write = Callable[..., Serve]
CAUSE = "ValueError: the stand-in finds no weights in /models/tiny"


def running(lab: Lab, name: str) -> list[str]:
    return [f"{left.host}: {left.what}" for left in lab.leftovers(name) if left.kind != "directory"]


def test_an_engine_that_dies_while_loading_is_reported_within_seconds(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="dies", envs={"STAND_IN_ERROR": CAUSE})
    command = operator.start("run", "-c", served.config)
    ended = command.end(exits=5)
    died = float(lab.hosts[0].run(["cat", f"{PLACE}/died"]).stdout)
    assert command.said_at(CAUSE) - died < 5.0
    assert re.search(r"✗ node1: (model0/0|vllm_serve_model0_0.sh) ended", ended.err)
    assert running(lab, served.name) == []

    folder = operator.run_folder()
    assert CAUSE in (folder / "logs/node1/logs/vllm_serve_model0_0.log").read_text()
    assert CAUSE in ended.err.partition("first cause in the logs")[2]
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "failed"
    assert report["exit_code"] == 5
    assert report["cause"]["host"] == "node1"
    assert report["stopped"] == {"node1": "nothing", "node2": "nothing"}
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert {"plan", "serve", "collect", "stop"} <= {event["stage"] for event in events}

    failed = operator("status", "--name", served.name, "--json", exits=1).json
    assert (failed["state"], CAUSE in failed["failure"]["cause"]) == ("failed", True)
    assert died <= failed["failure"]["at"] <= failed["stopped_at"]
    wrong = operator("stop", "--name", served.name + "x")
    assert f"there are: {served.name}" in wrong.err


def test_an_engine_that_can_never_come_up_is_not_waited_for(lab: Lab, operator: Operator, serve: Write) -> None:
    """It lives on: vLLM asks Ray for a node of that address for as long as it is let."""
    lost = "No available node types can fulfill resource request {'node:10.0.0.99': 0.001, 'GPU': 1.0}"
    served = serve(stand_in="stuck", envs={"STAND_IN_ERROR": lost})
    command = operator.start("run", "-c", served.config)
    ended = command.end(exits=5, within=30.0)
    cause = "VLLM_HOST_IP differs from the address by which Ray knows the node"
    assert f"model0/0 will never be ready: {cause}" in ended.err
    assert "remove VLLM_HOST_IP" in ended.err
    assert running(lab, served.name) == []


UNREADY: dict[str, Any] = {"deploy": {"ray": "off", "timeouts": {"ready": 2, "stop": 1}}}


def test_an_engine_that_fails_at_its_first_token_is_not_ready(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="tokenless", **UNREADY)
    ended = operator("run", "-c", served.config, exits=5)
    assert "is not ready after 2 s" in ended.err
    assert "EngineCore encountered an issue." in ended.err
    assert running(lab, served.name) == []


def test_an_engine_that_never_gets_ready_is_given_up_in_time(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="hangs,stubborn", **UNREADY)
    ended = operator("run", "-c", served.config, exits=5)
    assert "is not ready after 2 s (http://127.0.0.1" in ended.err
    assert running(lab, served.name) == []


def test_what_failed_can_be_kept_and_stopped_later(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="hangs", **UNREADY)
    ended = operator("run", "-c", served.config, "--keep-on-failure", exits=5)
    (stop_command,) = re.findall(r"stop it with: flagscale-deploy (.*)", ended.err)
    assert stop_command == f"stop -i {operator.inventory} --name {served.name}"
    (kept,) = lab.processes(served.name)
    stopped = operator("stop", "--name", served.name, "--json").json
    assert stopped["hosts"]["node1"]["ended"] == 1
    assert lab.leftovers(served.name, [kept])[0].kind == "directory"
    assert running(lab, served.name) == []


def test_a_script_that_fails_is_quoted_with_its_host(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(deploy={"ray": "on", "timeouts": {"ray": 3, "stop": 1}})
    ended = operator("run", "-c", served.config, exits=1)
    assert "ray_head.sh ended with exit status 7" in ended.err
    assert "ERROR: this Ray is a stand-in" in ended.err
    assert running(lab, served.name) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_an_environment_that_does_not_start_stops_the_run_before_it_begins(
    lab: Lab, operator: Operator, serve: Write, as_json: bool
) -> None:
    served = serve(deploy={"ray": "on"})  # so that something is to run on every host
    content = operator.inventory.read_text().replace("/environment", "/no-environment")
    operator.inventory.write_text(content)
    ended = operator("run", "-c", served.config, *(["--json"] if as_json else []), exits=4)
    assert all(f"{host.name}: its environment does not start" in ended.said for host in lab.hosts)
    assert running(lab, served.name) == []
