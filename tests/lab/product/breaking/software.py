"""Environments that lack something, or have another version of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.lab.product.breaking.models import edit
from tests.lab.product.breaking.stage import MODEL, Stage, caught_by

ODD: dict[str, dict[str, str | None]] = {
    "no ray": {"ray": None},
    "no vllm": {"vllm": None},
    "old vllm": {"vllm": "0.17.1"},
    "old ray": {"ray": "2.40.0"},
    "other ray": {"ray": "2.60.1"},
    "other vllm": {"vllm": "0.31.0"},
    "other torch": {"torch": "2.12.1"},
    "other python": {"python": "3.10.19"},
    "no backend": {"all2all": None},
}
"""Environments by what is odd about them, for `stand_in.make_environment`."""


@caught_by("environment", "correct venv or before_start", round="environments", at="node2")
def its_environment_is_not_there(stage: Stage) -> None:
    stage.inventory(venv="/nowhere")


@caught_by("router-installed", "pip install vllm-router", host="node1", round="fronts")
def a_router_is_asked_for(stage: Stage) -> None:
    """No environment has one; it is the head that needs it."""
    stage.flags(tensor_parallel_size=1)
    stage.deploy(models={"tiny": {"num_replicas": 2}})


@caught_by("gate-installed", "pip install aiohttp", host="node1", round="fronts")
def a_gate_is_asked_for(stage: Stage) -> None:
    """No environment has what it runs on; it is the head that needs it."""
    stage.flags(tensor_parallel_size=1)
    stage.deploy(gate=True)


@caught_by("vllm-version", "pip install 'vllm>=0.18.0'", at="node1")
def its_vllm_is_older_than_a_flag(stage: Stage) -> None:
    """Leave the other hosts out, whose vLLM is another."""
    stage.flags(tensor_parallel_size=1, shutdown_timeout=20)
    stage.inventory(venv=str(stage.environments["old vllm"]))


@caught_by("nixl-installed", "pip install nixl", round="pools", at="node1", words=("--skip-check", "router-installed"))
def its_prefill_pool_has_no_nixl(stage: Stage) -> None:
    stage.flags(tensor_parallel_size=1)
    pools(stage)["prefill"] = {"hosts": "node1"}


@caught_by("nixl-installed", "pip install nixl", round="pools", at="node2")
def its_decode_pool_has_no_nixl(stage: Stage) -> None:
    pools(stage)["decode"] = {"hosts": "node2"}


@caught_by("all2all-installed", "install DeepEP", at="node2", words=("--skip-check", "vllm-version"))
def it_lacks_the_backend_by_which_experts_exchange_tokens(stage: Stage) -> None:
    """Give the model experts, and each host a data-parallel rank; the stand-in's version is older than any flag."""
    for host in stage.lab.hosts:
        config: dict[str, Any] = json.loads(stage.on(f"cat {MODEL}/config.json", host=host))
        edit(stage, "config.json", json.dumps(config | {"num_experts": 8}), host)
    stage.flags(tensor_parallel_size=1, data_parallel_size=4, all2all_backend="deepep_low_latency")
    stage.inventory(venv=str(stage.environments["no backend"]))


def pools(stage: Stage) -> dict[str, Any]:
    """Return the model's settings in the section `deploy`."""
    settings: dict[str, Any] = stage.configuration["deploy"].setdefault("models", {}).setdefault("tiny", {})
    return settings


def with_environment(odd: str) -> Callable[[Stage], None]:
    def it_has(stage: Stage) -> None:
        stage.inventory(venv=str(stage.environments[odd]))

    it_has.__name__ = f"it_has_{odd.replace(' ', '_')}"
    return it_has


for _odd, _check, _remedy, _round, _at in (
    ("no ray", "ray-installed", "pip install 'ray[default]'", "environments", "node4"),
    ("no vllm", "vllm-installed", "pip install vllm", "versions", "node2"),
    ("old ray", "ray-version", "pip install 'ray[default]==2.60.0'", "versions", "node3"),
    ("other ray", "same-ray", "pip install 'ray[default]==2.60.0'", "versions", "node4"),
    ("other vllm", "same-vllm", "pip install vllm==", "other versions", "node2"),
    ("other torch", "same-torch", "pip install torch==2.13.0", "other versions", "node3"),
    ("other python", "same-python", "create its environment with Python 3.", "other versions", "node4"),
):
    caught_by(_check, _remedy, round=_round, at=_at)(with_environment(_odd))


@caught_by("environment", "correct venv or before_start", round="environments", at="node3")
def its_hook_fails(stage: Stage) -> None:
    stage.inventory(before_start="module load cuda/13")
