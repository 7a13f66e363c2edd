"""Whether the package of the all-to-all backend that data-parallel ranks name is installed on their hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.all2all import PACKAGES
from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context, Verdict
from flagscale_deploy.config.spec import PoolSpec
from tests.unit.checks.given import CONFIG, FILES, HOSTS, complaints, make_context, only
from tests.unit.plan.given import model, spec

MOE = replace(FILES, config={**CONFIG, "model_type": "qwen3_moe", "num_experts": 128})
VARIABLE = "VLLM_ALL2ALL_BACKEND"
DATA = {"data-parallel-size": 4, "tensor-parallel-size": 8, "enable-expert-parallel": True}


def serving(
    flags: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Context:
    """Data-parallel ranks of a model with experts over four hosts with DeepEP; some hosts have other facts."""
    serve_spec = spec(
        model(engine_args={"max-model-len": 32768, **DATA, **flags}, **settings), ray="off", env=dict(env or {})
    )
    sound = {"models": (MOE,), "all2all": ("deep_ep",)}
    return make_context({name: {**sound, **(changed or {}).get(name, {})} for name in HOSTS}, serve_spec=serve_spec)


def verdict_on(context: Context) -> Verdict:
    (verdict,) = [verdict for verdict in judge(context) if verdict.check == "all2all-installed"]
    return verdict


@pytest.mark.parametrize("backend", ["deepep_high_throughput", "deepep_low_latency", "deepep_v2"])
def test_the_host_without_the_package_is_named(backend: str) -> None:
    flags = {"all2all-backend": backend}
    assert verdict_on(serving(flags)).found == f"{backend} on 4 hosts"
    verdict = only(serving(flags, changed={"gpu03": {"all2all": ()}}))
    assert (verdict.check, verdict.state, verdict.host) == ("all2all-installed", "failed", "gpu03")
    assert verdict.found == f"all2all-backend is {backend}, but its environment has no package deep_ep"
    assert "install DeepEP (tools/ep_kernels of vLLM) on every host" in verdict.remedy


@pytest.mark.parametrize("backend", PACKAGES)
def test_every_backend_that_is_a_package_is_looked_for(backend: str) -> None:
    module, _ = PACKAGES[backend]
    old = {name: {"vllm": "0.15.1", "all2all": ()} for name in HOSTS}
    missing = complaints(serving({"all2all-backend": backend}, changed=old))
    assert [(verdict.check, verdict.host) for verdict in missing] == [("all2all-installed", name) for name in HOSTS]
    there = {name: {"vllm": "0.15.1", "all2all": (module,)} for name in HOSTS}
    assert complaints(serving({"all2all-backend": backend}, changed=there)) == []


@pytest.mark.parametrize("backend", ["allgather_reducescatter", "naive", "pplx", None])
def test_what_this_vllm_brings_or_takes_in_its_place_is_not(backend: str | None) -> None:
    nothing = {name: {"all2all": ()} for name in HOSTS}
    verdict = verdict_on(serving({"all2all-backend": backend}, changed=nothing))
    assert verdict.state == "skipped"
    assert "no ranks exchange tokens" in verdict.found


def test_a_variable_counts_for_the_vllm_that_reads_it() -> None:
    old = {name: {"vllm": "0.15.1"} for name in HOSTS}
    env = {VARIABLE: "deepep_low_latency"}
    assert verdict_on(serving({}, env, old)).found == "deepep_low_latency on 4 hosts"
    verdict = only(serving({}, env, {**old, "gpu02": {"vllm": "0.15.1", "all2all": ()}}))
    assert (verdict.host, verdict.state) == ("gpu02", "failed")
    assert complaints(serving({"all2all-backend": "naive"}, env, old)) == [], "the flag wins"
    verdicts = complaints(serving({}, env))
    assert [(verdict.host, verdict.state) for verdict in verdicts] == [(name, "warning") for name in HOSTS]
    assert verdicts[0].found == f"{VARIABLE} is deepep_low_latency: vLLM 0.32.0 does not read it"
    assert "set all2all-backend: deepep_low_latency for the model" in verdicts[0].remedy


def test_ranks_that_exchange_nothing_need_no_backend() -> None:
    nothing: dict[str, dict[str, Any]] = {name: {"all2all": ()} for name in HOSTS}
    flags = {"all2all-backend": "deepep_low_latency"}
    assert complaints(serving({**flags, "data-parallel-size": 1}, changed=nothing)) == []
    dense = {name: {"all2all": (), "models": (FILES,)} for name in HOSTS}
    verdicts = complaints(serving({**flags, "enable-expert-parallel": False}, changed=dense))
    assert [verdict.check for verdict in verdicts] == ["model-experts"], "replicas would do"


def test_a_host_that_runs_no_rank_needs_none() -> None:
    flags = {"all2all-backend": "deepep_low_latency", "data-parallel-size": 2}
    assert complaints(serving(flags, changed={name: {"all2all": ()} for name in HOSTS[2:]})) == []


def test_each_pool_names_its_own() -> None:
    pools: dict[str, Any] = {
        "prefill": PoolSpec(hosts="gpu01,gpu02", engine_args={"all2all-backend": "deepep_high_throughput"}),
        "decode": PoolSpec(hosts="gpu03,gpu04", engine_args={"all2all-backend": "flashinfer_nvlink_one_sided"}),
    }
    two = {name: {"all2all": ("flashinfer",)} for name in HOSTS[2:]}
    flags = {"data-parallel-size": 2}
    context = serving(flags, changed=two, **pools)
    assert verdict_on(context).found == "deepep_high_throughput on 2 hosts, flashinfer_nvlink_one_sided on 2 hosts"
    (verdict,) = complaints(serving(flags, changed={**two, "gpu04": {}}, **pools))
    assert (verdict.host, "flashinfer-python" in verdict.remedy) == ("gpu04", True)
