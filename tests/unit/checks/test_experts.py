"""Whether experts of a model fit its parallel sizes, and whether data-parallel ranks have a use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.model_numbers import experts, is_dense
from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context, Verdict
from flagscale_deploy.config.spec import PoolSpec
from tests.unit.checks.given import CONFIG, FILES, HOSTS, complaints, make_context, only
from tests.unit.plan.given import model, spec

MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 128}
EP = {"enable-expert-parallel": True}


def serving(flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Context:
    """One instance with these flags, of a model whose config.json says this as well."""
    files = replace(FILES, config={**CONFIG, **(config or {})})
    serve_spec = spec(model(engine_args={"max-model-len": 32768, **flags}), executor="mp", ray="off")
    return make_context({name: {"models": (files,)} for name in HOSTS}, serve_spec=serve_spec)


def verdict_on(context: Context) -> Verdict:
    (verdict,) = [verdict for verdict in judge(context) if verdict.check == "model-experts"]
    return verdict


def test_expert_parallelism_of_a_model_without_experts_fails() -> None:
    verdict = only(serving({"tensor-parallel-size": 8, **EP}))
    assert (verdict.check, verdict.state, verdict.host) == ("model-experts", "failed", "gpu01")
    assert verdict.found == "enable-expert-parallel, but /models/qwen has no experts"
    assert verdict.remedy == "remove enable-expert-parallel (qwen.yaml: model_args.qwen)"


def test_experts_in_equal_and_unequal_shares_pass() -> None:
    assert verdict_on(serving({"tensor-parallel-size": 8, **EP}, MOE)).found == "128 experts over 8 ranks: 16 each"
    uneven = serving({"tensor-parallel-size": 8, **EP}, MOE | {"num_experts": 60})
    assert verdict_on(uneven).found == "60 experts over 8 ranks: 7 each or one more"
    assert verdict_on(serving({"tensor-parallel-size": 8}, MOE)).found == "128 experts"


@pytest.mark.parametrize(
    "redundant",
    [{"eplb-config": {"num_redundant_experts": 2}}, {"eplb-config": '{"num_redundant_experts": 2}'},
     {"eplb-config.num_redundant_experts": 2}],
)  # fmt: skip
def test_load_balancing_needs_equal_shares(redundant: Mapping[str, Any]) -> None:
    flags = {"tensor-parallel-size": 8, "data-parallel-size": 4, "enable-eplb": True, **EP}
    verdict = only(serving({**flags, **redundant}, MOE))
    assert (verdict.check, verdict.state) == ("model-experts", "failed")
    assert verdict.found == "128 experts and 2 redundant over 32 ranks, with enable-eplb"
    assert "eplb-config: {num_redundant_experts: 32}" in verdict.remedy
    assert complaints(serving(flags, MOE)) == []


def test_ranks_without_an_expert_are_a_warning() -> None:
    verdict = only(serving({"tensor-parallel-size": 8, "data-parallel-size": 2, **EP}, MOE | {"num_experts": 8}))
    assert (verdict.check, verdict.state) == ("model-experts", "warning")
    assert verdict.found == "8 experts over 16 ranks: 8 ranks without an expert"


@pytest.mark.parametrize("flags", [{}, EP])
def test_more_tensor_parallel_ranks_than_experts_fail_where_the_models_code_refuses_them(
    flags: Mapping[str, Any],
) -> None:
    few = {"tensor-parallel-size": 16, **flags}
    verdict = only(serving(few, MOE | {"num_experts": 8}))
    assert (verdict.check, verdict.state, verdict.host) == ("model-experts", "failed", "gpu01")
    assert verdict.found == "tensor-parallel-size 16 with 8 experts: vLLM refuses that"
    assert verdict.remedy == "lower tensor-parallel-size (qwen.yaml: model_args.qwen)"
    other = complaints(serving(few, MOE | {"num_experts": 8, "model_type": "mixtral"}))
    assert [verdict.state for verdict in other] == (["warning"] if flags else [])


def test_each_pool_is_judged_by_its_own_flags() -> None:
    apart = model(
        engine_args={"max-model-len": 32768, "tensor-parallel-size": 8, **EP},
        prefill=PoolSpec(hosts="gpu01,gpu02", engine_args={"tensor-parallel-size": 16}, where="qwen.yaml: prefill"),
        decode=PoolSpec(hosts="gpu03", where="qwen.yaml: decode"),
    )
    files = replace(FILES, config={**CONFIG, **MOE, "num_experts": 8})
    serve_spec = spec(apart, executor="mp", ray="off")
    verdict = only(make_context({name: {"models": (files,)} for name in HOSTS}, serve_spec=serve_spec))
    assert (verdict.check, verdict.host) == ("model-experts", "gpu01")
    assert verdict.remedy == "lower tensor-parallel-size (qwen.yaml: prefill)"


def test_data_parallel_ranks_of_a_model_without_experts_are_a_warning() -> None:
    verdict = only(serving({"tensor-parallel-size": 8, "data-parallel-size": 4}))
    assert (verdict.check, verdict.state, verdict.host) == ("model-experts", "warning", "gpu01")
    assert verdict.found == "data-parallel-size 4 for a model without experts"
    assert verdict.remedy == "set num_replicas: 4 in place of data-parallel-size (qwen.yaml: model_args.qwen)"
    assert complaints(serving({"tensor-parallel-size": 8, "data-parallel-size": 4}, MOE)) == []


def test_hybrid_load_balancing_with_one_rank_on_each_host_needs_experts() -> None:
    flags = {"tensor-parallel-size": 8, "data-parallel-size": 4, "data-parallel-hybrid-lb": True}
    verdict = only(serving(flags))
    assert (verdict.check, verdict.state) == ("model-experts", "failed")
    assert "an API server for each rank" in verdict.found
    assert complaints(serving(flags, MOE)) == []
    assert only(serving(flags | {"tensor-parallel-size": 4, "data-parallel-size": 8})).state == "warning"


@pytest.mark.parametrize(
    ("config", "number", "dense"),
    [
        ({}, None, True),
        (MOE, 128, False),
        ({"n_routed_experts": 256}, 256, False),
        ({"num_local_experts": 8}, 8, False),
        ({"moe_num_experts": [64, 64]}, 64, False),
        ({"moe_num_experts": []}, None, False),
        ({"num_experts": None, "num_local_experts": 8}, None, False),
        ({"num_experts": "many"}, None, False),
        ({"model_type": "some_moe"}, None, False),
        ({"num_attention_heads": None}, None, False),
    ],
)
def test_what_config_json_says_of_experts(config: Mapping[str, Any], number: int | None, dense: bool) -> None:
    whole = {**CONFIG, **config}
    assert (experts(whole), is_dense(whole)) == (number, dense)
