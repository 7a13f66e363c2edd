"""Two replicas on two hosts behind vllm-router: both work, and one of them is enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tiny
from tests.e2e.sight import look_at
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator, Result, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

NAME = "twins"
PORT = 4567
READY_SECONDS = 600.0
SETTINGS = ("deploy.models.vllm_model.num_replicas=2", "deploy.router.policy=round_robin", "deploy.ray=auto",
            "deploy.restart=on-failure")  # fmt: skip


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path) -> Lab:
    return make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model])


@pytest.fixture(scope="module")
def ran(operator: Operator, tiny_model: Path) -> Result:
    config = tiny.write(operator.directory / f"{NAME}.yaml", tiny_model, port=PORT, gpus=1)
    return operator.start("run", "-c", config, *SETTINGS).end(0, within=READY_SECONDS)


@pytest.fixture(scope="module")
def after_one_died(lab: Lab, operator: Operator, ran: Result) -> Any:
    """Return the status after the engine on the second host was killed, with its supervisor."""
    engines = [process for process in lab.processes(NAME) if process.host == "node2"]
    lab.hosts[1].run(["kill", "-9", *(str(process.pid) for process in engines)])
    assert eventually(lambda: all(process.host != "node2" for process in lab.processes(NAME)))
    seen: list[Any] = []

    def is_dead() -> bool:
        seen.append(operator("status", "--name", NAME, "--json", exits=1).json)
        return [instance["state"] for instance in seen[-1]["instances"]][-1:] == ["dead"]

    assert eventually(is_dead, every=1.0), seen[-1]  # what was killed is there until it has been reaped
    return seen[-1]


def served(lab: Lab, operator: Operator) -> dict[str, int]:
    """How many chat completions each host's engine has answered, by its log."""
    operator("logs", "--name", NAME, "-o", operator.directory / "collected")
    logs = {host.name: operator.directory / "collected" / host.name / "logs" for host in lab.hosts}
    return {
        name: sum(path.read_text().count("/v1/chat/completions HTTP") for path in folder.glob("vllm_serve_*.log"))
        for name, folder in logs.items()
    }


def ask(operator: Operator) -> str:
    answer = json.loads(operator("call", "Say something.", "--name", NAME, "--max-tokens", "4", "--json").out)
    assert answer["usage"]["completion_tokens"] == 4
    return str(answer["model"])


def test_the_endpoint_is_the_routers(lab: Lab, ran: Result) -> None:
    assert f"endpoint http://{lab.hosts[0].address}:30000/v1" in ran.out
    assert f":{PORT}" not in ran.out


def test_status_has_both_replicas_and_the_router(operator: Operator, ran: Result) -> None:
    status = operator("status", "--name", NAME, "--json").json
    assert [
        (instance["name"], instance["state"], instance["driver"])
        for instance in status["instances"] + status["routers"]
    ] == [
        ("vllm_model/0", "ready", "node1"),
        ("vllm_model/1", "ready", "node2"),
        ("vllm_model/router", "ready", "node1"),
    ]


def test_completions_arrive_at_both(lab: Lab, operator: Operator, ran: Result) -> None:
    before = served(lab, operator)
    for _ in range(4):
        assert ask(operator) == "tiny"
    now = served(lab, operator)
    assert {name: now[name] - before[name] for name in now} == {"node1": 2, "node2": 2}


def test_an_engine_whose_core_was_killed_comes_back(lab: Lab, operator: Operator, ran: Result) -> None:
    (core,) = [process for process in look_at(lab.hosts[1]).processes if "VLLM::EngineCore" in process.command]
    lab.hosts[1].run(["kill", "-9", str(core.pid)])

    def back() -> bool:
        status = operator("status", "--name", NAME, "--json", exits=None).json
        return [(instance["state"], instance["restarts"]) for instance in status["instances"]] == [
            ("ready", 0),
            ("ready", 1),
        ]

    assert eventually(back, within=180, every=2.0)
    (restarted,) = [process for process in look_at(lab.hosts[1]).processes if "VLLM::EngineCore" in process.command]
    assert restarted.pid != core.pid


def test_requests_are_answered_when_one_has_died(operator: Operator, after_one_died: Any) -> None:
    assert after_one_died["state"] == "unwell"
    assert [instance["state"] for instance in after_one_died["instances"]] == ["ready", "dead"]
    for _ in range(4):
        assert ask(operator) == "tiny"


def test_stop_takes_all_of_it_away(lab: Lab, operator: Operator, after_one_died: Any) -> None:
    def routers() -> list[str]:
        """Find the router, which changes its process title and so loses its marker: the lab can't tell whose it is."""
        return [process.command for process in look_at(lab.hosts[0]).processes if "vllm::router" in process.command]

    processes = lab.processes(NAME)
    assert routers()
    operator.start("stop", "--name", NAME).end(0, within=120)
    assert not routers()
    assert eventually(lambda: not [left for left in lab.leftovers(NAME, processes) if left.kind != "directory"])
    operator("cleanup", "--name", NAME)
    assert lab.leftovers(NAME, processes) == []
