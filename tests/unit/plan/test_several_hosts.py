"""Flags of one server of several are refused; data parallel with Ray's executor stays on one host."""

from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.errors import CheckError, InputError
from flagscale_deploy.plan.validate import refuse_wrong
from tests.unit.plan.given import OFFLINE, faults_of, host, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("ray", ["on", "auto"])
@pytest.mark.parametrize(("tp", "dp", "fits"), [(1, 16, 8), (8, 2, 1), (4, 4, 2), (2, 6, 3)])
def test_data_parallel_by_rays_executor_is_refused_over_hosts_with_the_replicas_that_would_do(
    tp: int, dp: int, fits: int, ray: str, offline: bool
) -> None:
    hosts = inventory(host("gpu01", gpus=8), host("gpu02", gpus=8))
    serve = spec(model(tp=tp, engine_args={"data-parallel-size": dp, "distributed-executor-backend": "ray"}), ray=ray)
    (fault,) = faults_of(hosts, serve, OFFLINE if offline else None)
    assert (fault.where, fault.check) == ("qwen.yaml: model_args.qwen", "placement")
    assert fault.problem == (
        f"replica 0 needs {tp * dp} GPUs on one host (data-parallel-size is {dp}, and with "
        "distributed-executor-backend ray vLLM starts no rank on another host); free GPUs: gpu01 8, gpu02 8"
    )
    assert (
        fault.remedy
        == f"set data-parallel-size to {fits} and num_replicas to {dp // fits}: a router shares requests out"
    )


def test_the_replicas_of_the_remedy_can_be_placed() -> None:
    plan = planned(TWO, spec(model(tp=4, replicas=2, engine_args={"data-parallel-size": 2})))
    assert [instance.hosts for instance in plan.instances] == [("gpu01",), ("gpu02",)]
    assert not any("backend" in word for instance in plan.instances for word in instance.argv)


@pytest.mark.parametrize("settings", [{"tp": 16}, {"replicas": 2}, {"replicas": 3, "tp": 2}])
def test_what_replicas_would_not_help_says_what_fits(settings: dict[str, Any]) -> None:
    flags = {"data-parallel-size": 16, "distributed-executor-backend": "ray"}
    (fault,) = faults_of(TWO, spec(model(**{"tp": 1, **settings}, engine_args=flags)))
    assert "on one host (data-parallel-size is 16" in fault.problem
    assert "would fit on one host" in fault.remedy


@pytest.mark.parametrize(("tp", "dp"), [(1, 8), (2, 4), (8, 1), (1, 2)])
def test_data_parallel_on_one_host_stays_as_it_is(tp: int, dp: int) -> None:
    (instance,) = planned(TWO, spec(model(tp=tp, engine_args={"data-parallel-size": dp}))).instances
    assert (len(instance.hosts), instance.executor) == (1, "mp")
    assert not any("backend" in word for word in instance.argv)


def test_data_parallel_goes_around_busy_gpus_over_two_hosts() -> None:
    facts = {**seen("gpu01", busy=(0,)), **seen("gpu02", busy=(1,))}
    (instance,) = planned(TWO, spec(model(engine_args={"data-parallel-size": 8})), facts).instances
    assert instance.gpus == {"gpu01": (1, 2, 3, 4), "gpu02": (0, 2, 3, 4)}


OF_SEVERAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nnodes": ({"nnodes": 2}, {"nnodes": 1}),
    "node-rank": ({"node-rank": 1}, {"node-rank": 0}),
    "master-addr": ({"master-addr": "10.0.0.1"}, {"master-port": 29501}),
    "headless": ({"headless": True}, {"headless": False}),
    "data-parallel-rank": ({"data-parallel-rank": 0}, {"data-parallel-rpc-port": 13345}),
    "data-parallel-start-rank": ({"data-parallel-start-rank": 1}, {"data-parallel-start-rank": 0}),
    "data-parallel-size-local": (
        {"data-parallel-size-local": 2},
        {"data-parallel-size": 2, "data-parallel-size-local": 2},
    ),
}


@pytest.mark.parametrize("flag", OF_SEVERAL)
def test_a_flag_of_one_server_of_several_is_refused(flag: str) -> None:
    wrong, right = OF_SEVERAL[flag]
    actions = tuple(name if value is True else f"{name}={value}" for name, value in wrong.items())
    whole = spec(model(engine_args=right))
    assert planned(TWO, whole).instances
    for serve, place in (
        (spec(model(engine_args=wrong)), "model_args.qwen"),
        (spec(model(action_args=actions)), "model_args.qwen"),
        (spec(model(), host_engine_args={"gpu02": wrong}), "experiment.node_args.gpu02.engine_args"),
    ):
        with pytest.raises(InputError) as raised:
            refuse_wrong(serve)
        fault = next(fault for fault in raised.value.faults if fault.where.endswith(f".{flag}"))
        assert fault.where == f"qwen.yaml: {place}.{flag}"
        assert fault.remedy


@pytest.mark.parametrize("word", [True, "yes", "on", "true"])
def test_a_headless_server_is_refused_for_answering_no_client(word: object) -> None:
    with pytest.raises(InputError, match="a headless server answers no client"):
        refuse_wrong(spec(model(engine_args={"headless": word})))


def test_a_refusal_with_facts_is_a_checks() -> None:
    flags = {"data-parallel-size": 16, "distributed-executor-backend": "ray"}
    with pytest.raises(CheckError, match="vLLM starts no rank on another host"):
        planned(TWO, spec(model(engine_args=flags)))
