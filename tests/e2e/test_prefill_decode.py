"""Prefill on one host and decode on another, behind vllm-router and a gate: the KV cache goes over NIXL.

Behind the gate the engines ask for a key, which this router does not pass on but has itself.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tiny
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator, Result, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

NAME = "apart"
READY_SECONDS = 600.0
WELL_SECONDS = 120.0
SETTINGS = (
    "deploy.models.vllm_model.prefill={}",
    "deploy.models.vllm_model.decode={}",
    "deploy.ray=auto",
    "deploy.gate=true",
    "deploy.router.host=0.0.0.0",
    "+experiment.envs.UCX_TLS=tcp",
    "+experiment.envs.UCX_NET_DEVICES=eth0",
    "--skip-check",
    "engine-arguments",
)
"""vLLM's parser on each host, which takes six core-seconds, is asked in other modules."""
FLAGS = {"block-size": 32, **tiny.IN_ONE_PROCESS}


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path) -> Lab:
    return make_lab(hosts=2, gpus=0, mounts=[*build.mounts(node_env), tiny_model])


@pytest.fixture(scope="module")
def ran(operator: Operator, tiny_model: Path) -> Result:
    config = tiny.write(operator.directory / f"{NAME}.yaml", tiny_model, port=4567, gpus=0, flags=FLAGS, forks=True)
    return operator.start("run", "-c", config, *SETTINGS).end(0, within=READY_SECONDS)


@pytest.fixture(scope="module")
def served(operator: Operator, ran: Result) -> tuple[Any, Any]:
    """Return the status before and after a request through the router."""
    before = status_of(operator)
    operator("call", "Say something. " * 20, "--name", NAME, "--max-tokens", "8")
    return before, status_of(operator)


def status_of(operator: Operator) -> Any:
    """Return the status when all is well; where other engines load, a token through the router takes its time."""
    results: list[Result] = []

    def well() -> bool:
        results.append(operator("status", "--name", NAME, "--json", exits=None))
        return results[-1].code == 0

    assert eventually(well, WELL_SECONDS), results[-1].said
    return results[-1].json


def servers(status: Any) -> list[Any]:
    return [*status["instances"], *status["routers"]]


def received(status: Any) -> dict[str, float]:
    """Return the bytes of KV cache that each engine has fetched."""
    return {one["name"]: one["metrics"]["kv_received"] for one in status["instances"] if one["metrics"]}


def test_a_request_through_the_router_takes_its_cache_from_prefill(served: tuple[Any, Any]) -> None:
    before, after = served
    assert [(one["name"], one["state"], one["driver"]) for one in servers(before)] == [
        ("vllm_model/prefill/0", "ready", "node1"),
        ("vllm_model/decode/0", "ready", "node2"),
        ("vllm_model/router", "ready", "node1"),
        ("gate", "ready", "node1"),
    ]
    first, later = received(before), received(after)
    assert first["vllm_model/prefill/0"] == later["vllm_model/prefill/0"] == 0
    assert 0 < first["vllm_model/decode/0"] < later["vllm_model/decode/0"]


def test_a_dead_prefill_is_named_while_the_router_calls_itself_healthy(
    lab: Lab, operator: Operator, served: object
) -> None:
    titles = ("vllm serve", "VLLM::")  # forks of a server hold its port as well
    engines = [
        process
        for process in lab.processes(NAME)
        if process.host == "node1" and any(title in process.command for title in titles)
    ]
    lab.hosts[0].run(["kill", "-9", *(str(engine.pid) for engine in engines)])
    seen: list[Any] = []

    def is_dead() -> bool:
        seen.append(operator("status", "--name", NAME, "--json", exits=1).json)
        return [one["state"] for one in seen[-1]["instances"][:2]] == ["dead", "ready"]

    assert eventually(is_dead, every=2.0), seen[-1]
    router = f"http://{lab.hosts[0].address}:30000"
    with urllib.request.urlopen(f"{router}/health", timeout=60) as health:
        assert health.status == 200
    body = json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 1}).encode()
    asked = urllib.request.Request(f"{router}/v1/completions", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=60)
    text = refused.value.read().decode()
    assert refused.value.code == 500, text
    assert "Prefill request to" in text
