"""Prefill and decode apart: pools of instances behind a router, which hand the KV cache over by NIXL."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import ModelSpec, PoolSpec, RouterSpec
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import InstancePlan, Plan
from flagscale_deploy.plan.rank import Rank, flag_of
from flagscale_deploy.plan.validate import unknown_flags
from tests.unit.plan.given import facts, faults_of, host, inventory, model, planned, seen, spec, taken

TWO = inventory("gpu01", "gpu02")
SIDE = ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT")


def apart(name: str = "qwen", *, prefill: Any = None, decode: Any = None, **settings: Any) -> ModelSpec:
    """Return a model with pools of one instance, with the settings of PoolSpec given for each."""
    return model(name, prefill=PoolSpec(**(prefill or {})), decode=PoolSpec(**(decode or {})), **settings)


def by_name(plan: Plan) -> dict[str, InstancePlan]:
    return {instance.name: instance for instance in plan.instances}


def transfer(rank: Rank) -> Any:
    """Return the `--kv-transfer-config` of a rank."""
    return json.loads(flag_of(rank.argv, "kv-transfer-config") or "null")


def router_words(plan: Plan) -> list[str]:
    """Return the flags of the only router that have to do with what is behind it."""
    (router,) = plan.routers
    prefixes = ("--prefill", "--decode", "--kv-connector", "--vllm-pd", "--policy", "--worker-urls")
    return [word for word in router.argv if word.startswith(prefixes)]


def test_each_pool_is_instances_of_its_own_behind_one_router() -> None:
    plan = planned(TWO, spec(apart(tp=8)))
    prefill, decode = plan.instances
    assert [(one.name, one.model, one.pool, one.replica, one.driver) for one in plan.instances] == [
        ("qwen/prefill/0", "qwen", "prefill", 0, "gpu01"),
        ("qwen/decode/0", "qwen", "decode", 0, "gpu02"),
    ]
    assert [one.ranks[0].role for one in plan.instances] == ["prefill", "decode"]
    assert all(one.ranks[0].answers for one in plan.instances)
    assert (prefill.port, decode.port) == (8000, 8000)
    assert len({prefill.script, decode.script}) == 2
    shared = {"kv_connector": "NixlConnector", "kv_load_failure_policy": "fail"}
    assert transfer(prefill.ranks[0]) == {**shared, "kv_role": "kv_producer"}
    assert transfer(decode.ranks[0]) == {**shared, "kv_role": "kv_consumer"}
    assert router_words(plan) == [
        "--vllm-pd-disaggregation",
        "--prefill=http://10.0.0.1:8000",
        "--decode=http://10.0.0.2:8000",
        "--kv-connector=nixl",
        "--policy=round_robin",
    ]
    assert [server.name for server in plan.entrances] == ["qwen/router"]


def test_the_side_channel_listens_at_the_address_of_the_host_and_at_a_port_of_its_own() -> None:
    plan = planned(TWO, spec(apart(tp=2)))
    ranks = {instance.name: instance.ranks[0] for instance in plan.instances}
    assert {name: rank.host for name, rank in ranks.items()} == {"qwen/prefill/0": "gpu01", "qwen/decode/0": "gpu01"}
    assert [tuple(rank.env[name] for name in SIDE) for rank in ranks.values()] == [
        ("10.0.0.1", "5600"),
        ("10.0.0.1", "5601"),
    ]
    assert [dict(rank.ports) for rank in ranks.values()] == [{"api": 8000, "nixl": 5600}, {"api": 8001, "nixl": 5601}]
    assert [f"export {SIDE[1]}={port}" in plan.scripts["gpu01"][rank.script] for rank, port in
            zip(ranks.values(), ("5600", "5601"), strict=True)] == [True, True]  # fmt: skip


def test_a_side_channel_passes_over_ports_that_others_use() -> None:
    busy = seen("gpu01", "gpu02") | {"gpu01": facts("gpu01", ports=(taken(5600),))}
    prefill, _ = planned(TWO, spec(apart(tp=8)), busy).instances
    assert prefill.env[SIDE[1]] == "5601"


def test_the_users_variables_win_and_a_port_for_two_is_a_fault() -> None:
    asked = {SIDE[0]: "192.168.7.1", SIDE[1]: "5557"}
    prefill, decode = planned(TWO, spec(apart(tp=8, prefill={"env": asked}))).instances
    assert [prefill.env[name] for name in SIDE] == ["192.168.7.1", "5557"]
    assert prefill.ranks[0].ports == {"api": 8000, "nixl": 5557}
    assert decode.env[SIDE[1]] == "5600"
    (fault,) = faults_of(TWO, spec(apart(tp=2), env={SIDE[1]: "5557"}))
    assert "port 5557 on gpu01 is assigned twice: to the NIXL side channel of qwen/prefill/0" in fault.problem


def test_pools_have_replicas_sizes_flags_and_hosts_of_their_own() -> None:
    model_apart = apart(
        tp=2,
        engine_args={"max-num-seqs": 64},
        prefill={"replicas": 2, "hosts": "gpu01"},
        decode={"hosts": "gpu02", "engine_args": {"tensor-parallel-size": 4, "max-num-seqs": 8}},
    )
    instances = by_name(planned(TWO, spec(model_apart)))
    assert {name: one.gpus for name, one in instances.items()} == {
        "qwen/prefill/0": {"gpu01": (0, 1)},
        "qwen/prefill/1": {"gpu01": (2, 3)},
        "qwen/decode/0": {"gpu02": (0, 1, 2, 3)},
    }
    assert [flag_of(one.argv, "max-num-seqs") for one in instances.values()] == ["64", "64", "8"]
    assert [dict(one.ranks[0].ports) for one in instances.values()] == [
        {"api": 8000, "nixl": 5600},
        {"api": 8001, "nixl": 5601},
        {"api": 8000, "nixl": 5600},
    ]


def test_an_instance_of_a_pool_may_span_hosts() -> None:
    four = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    prefill, decode = planned(four, spec(apart(tp=16), executor="mp")).instances
    assert (prefill.hosts, decode.hosts) == (("gpu01", "gpu02"), ("gpu03", "gpu04"))
    assert [rank.role for rank in decode.ranks] == ["decode", "follower"]
    assert [rank.name for rank in decode.ranks] == ["qwen/decode/0", "qwen/decode/0 rank 1"]
    assert {flag_of(rank.argv, "master-addr") for rank in decode.ranks} == {"10.0.0.3"}
    assert [transfer(rank)["kv_role"] for rank in decode.ranks] == ["kv_consumer", "kv_consumer"]
    assert [rank.env[SIDE[0]] for rank in decode.ranks] == ["10.0.0.3", "10.0.0.4"]
    assert [dict(rank.ports) for rank in decode.ranks] == [{"api": 8000, "master": 29501, "nixl": 5600}, {}]


def test_data_parallel_ranks_listen_at_a_port_each_counted_over_all_hosts() -> None:
    four = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    dp = {"data-parallel-size": 16, "enable-expert-parallel": True}
    _, decode = planned(four, spec(apart(engine_args=dp))).instances
    head, follower = decode.ranks
    assert [port for use, port in head.ports.items() if use.startswith("nixl")] == list(range(5600, 5608))
    assert [port for use, port in follower.ports.items() if use.startswith("nixl")] == list(range(5608, 5616))
    assert {rank.env[SIDE[1]] for rank in decode.ranks} == {"5600"}


def test_the_ports_of_data_parallel_ranks_are_in_a_row() -> None:
    busy = seen("gpu01", "gpu02") | {"gpu01": facts("gpu01", ports=(taken(5602),))}
    prefill, _ = planned(TWO, spec(apart(engine_args={"data-parallel-size": 8})), busy).instances
    assert (prefill.env[SIDE[1]], prefill.ranks[0].ports["nixl 7"]) == ("5603", 5610)


BY_RAY = {"data-parallel-size": 16, "data-parallel-backend": "ray"}


def test_ranks_that_ray_starts_have_their_ports_free_on_every_host_of_theirs() -> None:
    """Ray chooses which ranks run on the second host; vLLM adds a rank's number to the driver's port."""
    four = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    busy = seen(*four.names) | {"gpu02": facts("gpu02", ports=(taken(5605),))}
    prefill, decode = planned(four, spec(apart(engine_args=BY_RAY)), busy).instances
    assert (prefill.hosts, decode.hosts) == (("gpu01", "gpu02"), ("gpu03", "gpu04"))
    assert [one.env[SIDE[1]] for one in (prefill, decode)] == ["5606", "5600"]
    assert [port for use, port in prefill.ranks[0].ports.items() if use.startswith("nixl")] == list(range(5606, 5614))


def test_a_port_that_is_set_for_them_has_to_be_free_on_every_host_of_theirs() -> None:
    busy = seen("gpu01", "gpu02", count=16) | {"gpu02": facts("gpu02", 16, ports=(taken(5705),))}
    flags = {**BY_RAY, "data-parallel-size-local": 8}
    prefill, decode = {"env": {SIDE[1]: "5700"}}, {"env": {SIDE[1]: "5800"}}
    (fault,) = faults_of(TWO, spec(apart(engine_args=flags, prefill=prefill, decode=decode)), busy)
    assert fault.problem.startswith("port 5705 on gpu02, for the NIXL side channel of qwen/prefill/0, is in use")


def test_without_gpus_the_cache_is_in_the_memory_of_the_host() -> None:
    plan = planned(inventory(host("cpu01", type="cpu"), host("cpu02", type="cpu")), spec(apart(num_gpus=0)),
                   seen("cpu01", "cpu02", count=0))  # fmt: skip
    assert [transfer(one.ranks[0])["kv_buffer_device"] for one in plan.instances] == ["cpu", "cpu"]
    assert [one.driver for one in plan.instances] == ["cpu01", "cpu02"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"kv-connector": "MooncakeConnector"}, {"kv_connector": "MooncakeConnector", "kv_role": "kv_producer"}),
        ({"kv-transfer-config": {"kv_role": "kv_both"}}, {"kv_connector": "NixlConnector", "kv_role": "kv_both"}),
        ({"kv-transfer-config": '{"kv_buffer_device": "cpu"}'}, {"kv_buffer_device": "cpu", "kv_role": "kv_producer"}),
        (
            {"kv-transfer-config.kv_connector_extra_config.backends": ["UCX"]},
            {"kv_connector_extra_config": {"backends": ["UCX"]}, "kv_role": "kv_producer"},
        ),
    ],
)
def test_the_users_transfer_settings_win(flags: Any, expected: Any) -> None:
    serve = spec(apart(tp=8, engine_args=flags))
    plan = planned(TWO, serve)
    rank = plan.instances[0].ranks[0]
    config = transfer(rank)
    assert {key: config[key] for key in expected} == expected
    assert [word.partition("=")[0] for word in rank.argv if word.startswith("--kv-")] == ["--kv-transfer-config"]
    assert unknown_flags(serve) == []
    mooncake = "kv-connector" in flags
    assert f"--kv-connector={'mooncake' if mooncake else 'nixl'}" in router_words(plan)
    assert (SIDE[0] in rank.env, "nixl" in rank.ports) == (not mooncake, not mooncake)


def test_a_whole_config_of_the_user_stays_as_it_is_written() -> None:
    text = '{"kv_connector":"NixlConnector","kv_role":"kv_producer","kv_load_failure_policy":"fail"}'
    prefill, _ = planned(TWO, spec(apart(tp=8, prefill={"engine_args": {"kv-transfer-config": text}}))).instances
    assert f"--kv-transfer-config={text}" in prefill.argv


def test_the_policy_is_the_users() -> None:
    plan = planned(TWO, spec(apart(tp=8), router=RouterSpec(policy="cache_aware", options={"decode-policy": "random"})))
    assert "--policy=cache_aware" in router_words(plan)
    assert "--decode-policy=random" in router_words(plan)
    assert plan.routers[0].policy == "cache_aware"


def test_models_with_and_without_pools_are_planned_together() -> None:
    plan = planned(TWO, spec(apart(tp=4), model("other", tp=2, port=9000)))
    assert sorted(by_name(plan)) == ["other/0", "qwen/decode/0", "qwen/prefill/0"]
    assert [server.name for server in plan.entrances] == ["qwen/router", "other/0"]
    assert "kv-transfer-config" not in str(by_name(plan)["other/0"].argv)


def test_the_plan_as_json_names_the_pool() -> None:
    document: Any = plan_json(planned(TWO, spec(apart(tp=8))))
    assert [(one["model"], one["pool"]) for one in document["instances"]] == [("qwen", "prefill"), ("qwen", "decode")]
    assert [one["ranks"][0]["role"] for one in document["instances"]] == ["prefill", "decode"]
    assert document["instances"][0]["ranks"][0]["ports"] == {"api": 8000, "nixl": 5600}


def test_instances_of_pools_may_be_restarted() -> None:
    assert planned(TWO, spec(apart(tp=8), restart=RestartSpec(policy="on-failure"))).instances


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (spec(apart(tp=8), router=RouterSpec(enabled=False)), "is none, but the pools of qwen need a router"),
        (
            spec(apart(tp=8, decode={"engine_args": {"block-size": 32}})),
            "block-size of qwen is vLLM's default in prefill and 32 in decode",
        ),
        (spec(apart(tp=8, engine_args={"kv-connector": "P2pNcclConnector"})), "no way to use P2pNcclConnector"),
    ],
)
def test_what_cannot_work_together_is_a_fault(serve: Any, problem: str) -> None:
    assert any(problem in fault.problem for fault in faults_of(TWO, serve))


def test_a_pool_without_room_says_which() -> None:
    (fault,) = faults_of(TWO, spec(apart(tp=8, decode={"replicas": 2, "where": "qwen.yaml: decode"})))
    assert (fault.where, fault.problem[:20]) == ("qwen.yaml: decode", "num_replicas is 2, a")


def test_a_host_of_a_pool_without_nixl_is_a_fault() -> None:
    without = seen("gpu01", "gpu02") | {"gpu02": facts("gpu02", nixl=None)}
    (fault,) = faults_of(TWO, spec(apart(tp=8)), without)
    assert (fault.where, fault.check, fault.remedy[:16]) == ("gpu02", "nixl-installed", "pip install nixl")
    assert planned(TWO, spec(model(tp=8)), without)
