"""An instance over several hosts is a group of ranks: without Ray, and with data-parallel ranks."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.rank import Rank
from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec, taken

TWO = inventory("gpu01", "gpu02")
OF_GROUPS = ("data-parallel", "distributed", "headless", "master", "nnodes", "node-rank", "port")


def group_of(serve: Any, hosts: Any = TWO, host_facts: Any = None) -> InstancePlan:
    (instance,) = planned(hosts, serve, host_facts).instances
    return instance


def flags(rank: Rank) -> list[str]:
    """Return the flags by which a rank differs from a server of its own."""
    return [word for word in rank.argv if word.removeprefix("--").startswith(OF_GROUPS)]


def test_tensor_parallel_by_multiprocessing_has_a_driver_and_headless_followers_in_equal_shares() -> None:
    plan = planned(TWO, spec(model(tp=16), executor="mp"))
    (instance,) = plan.instances
    assert (instance.executor, instance.gpus) == ("mp", {"gpu01": tuple(range(8)), "gpu02": tuple(range(8))})
    shared = ["--nnodes=2", "--master-addr=10.0.0.1", "--master-port=29501"]
    driver, follower = instance.ranks
    assert (driver.role, follower.role) == ("driver", "follower")
    assert sorted(flags(driver)) == sorted(
        [*shared, "--distributed-executor-backend=mp", "--node-rank=0", "--port=8000"]
    )
    assert sorted(flags(follower)) == sorted(
        [*shared, "--distributed-executor-backend=mp", "--node-rank=1", "--headless"]
    )
    assert not plan.ray.enabled
    assert "RAY_ADDRESS" not in driver.env
    assert [rank.env["VLLM_HOST_IP"] for rank in instance.ranks] == ["10.0.0.1", "10.0.0.2"]
    assert {rank.env["CUDA_VISIBLE_DEVICES"] for rank in instance.ranks} == {"0,1,2,3,4,5,6,7"}
    assert (driver.ports, follower.ports) == ({"api": 8000, "master": 29501}, {})
    assert (follower.local_url, follower.worker_url) == ("", "")


def test_all_ranks_start_at_the_same_time_each_by_a_script_of_its_own() -> None:
    plan = planned(TWO, spec(model(tp=16), executor="mp"))
    (serve,) = plan.stages
    assert [(step.host, step.script) for step in serve.steps] == [
        ("gpu01", "vllm_serve_qwen_0.sh"),
        ("gpu02", "vllm_serve_qwen_0_rank1.sh"),
    ]
    text = plan.scripts["gpu02"]["vllm_serve_qwen_0_rank1.sh"]
    assert "--headless" in text
    assert "--node-rank=1" in text
    assert "VLLM_HOST_IP=10.0.0.2" in text


def test_pipeline_parallel_ranks_are_shared_out_too() -> None:
    serve = spec(model(tp=8, engine_args={"pipeline-parallel-size": 2}), executor="mp")
    assert [len(rank.gpus) for rank in group_of(serve).ranks] == [8, 8]


@pytest.mark.parametrize(
    ("executor", "flag", "expected"),
    [
        ("ray", None, "ray"),
        ("mp", None, "mp"),
        ("auto", None, "mp"),
        ("ray", "mp", "mp"),
        ("mp", "ray", "ray"),
        ("auto", "ray", "ray"),
    ],
)
def test_a_models_own_backend_wins_over_deploy_executor(executor: str, flag: str | None, expected: str) -> None:
    own = {} if flag is None else {"distributed-executor-backend": flag}
    assert group_of(spec(model(tp=16, engine_args=own), executor=executor)).executor == expected


def test_auto_takes_ray_where_shares_cannot_be_equal() -> None:
    uneven = {**seen("gpu01", count=8), **seen("gpu02", count=4)}
    assert group_of(spec(model(tp=12), executor="auto"), host_facts=uneven).executor == "ray"


def test_unequal_shares_are_a_fault_that_names_ray() -> None:
    uneven = {**seen("gpu01", count=8), **seen("gpu02", count=4)}
    (fault,) = faults_of(TWO, spec(model(tp=12), executor="mp"), uneven)
    assert fault.problem == "replica 0 needs 12 GPUs in equal shares on each host; free GPUs: gpu01 8, gpu02 4"
    assert "set deploy.executor: ray" in fault.remedy


def test_each_group_gets_a_master_port_of_its_own_that_nobody_uses() -> None:
    hosts = inventory("gpu01", "gpu02")
    host_facts = {"gpu01": facts("gpu01", ports=(taken(29501),)), "gpu02": facts("gpu02")}
    halves = planned(
        hosts, spec(model("a", tp=2, hosts="gpu*"), model("b", tp=12, port=8001), executor="mp"), host_facts
    )
    assert [instance.ranks[0].ports.get("master") for instance in halves.instances] == [None, 29502]


RESTART = RestartSpec(policy="on-failure", lost=90)


@pytest.mark.parametrize(
    "serve",
    [
        spec(model(tp=16), executor="mp", restart=RESTART),
        spec(model(tp=1, engine_args={"data-parallel-size": 16}), restart=RESTART),
    ],
    ids=["multiprocessing", "data parallel"],
)
def test_the_supervisors_of_a_group_know_each_other(serve: Any) -> None:
    plan = planned(TWO, serve)
    (instance,) = plan.instances
    assert instance.ranks[0].ports["supervisor"] == 29601
    assert "supervisor" not in instance.ranks[1].ports
    for rank in instance.ranks:
        words = plan.scripts[rank.host][rank.script].split()
        assert {"--group-hosts=gpu01,gpu02", f"--group-rank={rank.number}", "--group-address=10.0.0.1"} <= {*words}
        assert {"--group-port=29601", "--group-peers=10.0.0.1,10.0.0.2", "--lost=90", "--parts"} <= {*words}
        assert f"--script={rank.script}" in words, "its token's file has that name"


def test_a_server_of_one_rank_has_no_group_to_restart() -> None:
    plan = planned(TWO, spec(model(tp=8), restart=RESTART))
    (instance,) = plan.instances
    assert instance.ranks[0].ports == {"api": 8000}
    assert "--group" not in plan.scripts[instance.driver][instance.script]


def test_a_group_that_starts_after_a_reboot_needs_a_policy() -> None:
    (fault,) = faults_of(TWO, spec(model(tp=16), executor="mp", restart=RestartSpec(boot=True)))
    assert "deploy.restart.boot without a policy restarts those of one host" in fault.problem
    assert fault.remedy == "set deploy.restart.policy: on-failure"


def test_data_parallel_ranks_have_one_api_server_and_followers_with_their_first_rank() -> None:
    instance = group_of(spec(model(tp=1, engine_args={"data-parallel-size": 16})))
    shared = ["--data-parallel-size=16", "--data-parallel-address=10.0.0.1", "--data-parallel-rpc-port=29550",
              "--data-parallel-size-local=8"]  # fmt: skip
    driver, follower = instance.ranks
    assert sorted(flags(driver)) == sorted([*shared, "--port=8000"])
    assert sorted(flags(follower)) == sorted([*shared, "--data-parallel-start-rank=8", "--headless"])
    assert [rank.data_rank for rank in instance.ranks] == [0, 8]
    assert driver.ports == {"api": 8000, "data-parallel-rpc": 29550}


@pytest.mark.parametrize("group", [{"tp": 16}, {"tp": 1, "engine_args": {"data-parallel-size": 16}}], ids=["mp", "dp"])
def test_followers_have_no_number_of_api_servers_which_vllm_refuses_there(group: dict[str, Any]) -> None:
    several = {**group.get("engine_args", {}), "api-server-count": 4}
    (instance,) = planned(TWO, spec(model(**{**group, "engine_args": several}), executor="mp")).instances
    counts = [[word for word in rank.argv if "api-server" in word] for rank in instance.ranks]
    assert counts == [["--api-server-count=4"], []]


def test_512_ranks_over_64_hosts_are_planned_in_a_moment() -> None:
    hosts = inventory(*(f"gpu{number:02d}" for number in range(1, 65)))
    serve = spec(model(engine_args={"data-parallel-size": 512, "enable-expert-parallel": True}), ray="auto")
    host_facts = seen(*hosts.names)
    began = time.process_time()
    plan = planned(hosts, serve, host_facts)
    assert time.process_time() - began < 5  # 0.02 s
    (instance,) = plan.instances
    assert [rank.data_rank for rank in instance.ranks] == list(range(0, 512, 8))
    assert len(plan.scripts) == 64


def test_data_parallel_ranks_may_be_unequal_and_each_stays_on_one_host() -> None:
    uneven = {**seen("gpu01", count=8), **seen("gpu02", count=5)}
    instance = group_of(spec(model(tp=2, engine_args={"data-parallel-size": 6})), host_facts=uneven)
    assert [len(rank.gpus) for rank in instance.ranks] == [8, 4]
    assert [rank.data_rank for rank in instance.ranks] == [0, 4]


def test_hybrid_balancing_has_an_api_server_on_each_host_and_a_router_before_them() -> None:
    serve = spec(model(engine_args={"data-parallel-size": 16, "data-parallel-hybrid-lb": True}))
    plan = planned(TWO, serve)
    (instance,) = plan.instances
    assert [rank.role for rank in instance.ranks] == ["driver", "dp"]
    assert not any("--headless" in rank.argv for rank in instance.ranks)
    assert [rank.local_url for rank in instance.ranks] == ["http://127.0.0.1:8000"] * 2
    (router,) = plan.routers
    assert router.workers == ("http://10.0.0.1:8000", "http://10.0.0.2:8000")
    assert "--intra-node-data-parallel-size=8" in router.argv


def test_rays_data_parallel_backend_has_one_driver_that_says_how_many_ranks_are_local() -> None:
    plan = planned(TWO, spec(model(engine_args={"data-parallel-size": 16, "data-parallel-backend": "ray"})))
    (instance,) = plan.instances
    (driver,) = instance.ranks
    assert "--data-parallel-size-local=8" in driver.argv
    assert not any("distributed-executor-backend" in word for word in driver.argv)
    assert (instance.executor, plan.ray.enabled) == ("ray", True)
    assert [node.num_gpus for node in plan.ray.nodes] == [8, 8]


@pytest.mark.parametrize(("local", "hosts"), [(8, 2), (4, 4)])
def test_a_local_size_says_how_many_hosts_there_are(local: int, hosts: int) -> None:
    four = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    instance = group_of(spec(model(engine_args={"data-parallel-size": 16, "data-parallel-size-local": local})), four)
    assert [len(rank.gpus) for rank in instance.ranks] == [local] * hosts


def test_a_replica_of_one_host_is_a_group_of_one() -> None:
    (rank,) = group_of(spec(model(tp=8), executor="mp")).ranks
    assert (rank.name, rank.role, rank.number) == ("qwen/0", "driver", 0)
    assert flags(rank) == ["--port=8000"]


def test_the_plan_for_programs_has_the_ranks() -> None:
    content = json.loads(json.dumps(plan_json(planned(TWO, spec(model(tp=16), executor="mp")))))
    ranks = content["instances"][0]["ranks"]
    assert [(rank["role"], rank["host"]) for rank in ranks] == [("driver", "gpu01"), ("follower", "gpu02")]


def test_variables_of_a_pool_are_those_of_all_its_ranks_over_the_others_but_for_the_gpus() -> None:
    own = {"A": "pool", "VLLM_HOST_IP": "10.9.9.9", "CUDA_VISIBLE_DEVICES": "7"}
    served = spec(replace(model(tp=16), env=own), env={"A": "all", "B": "all"}, executor="mp")
    for rank in group_of(served).ranks:
        assert (rank.env["A"], rank.env["B"], rank.env["VLLM_HOST_IP"]) == ("pool", "all", "10.9.9.9")
        assert rank.env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


def test_a_local_size_that_needs_more_hosts_than_there_are_is_a_fault() -> None:
    flags = {"data-parallel-size": 2, "data-parallel-size-local": 1}
    (fault,) = faults_of(inventory("gpu01"), spec(model(engine_args=flags)))
    assert fault.problem == ("replica 0 needs 2 GPUs on hosts with data-parallel-size-local=1 each; free GPUs: gpu01 8")
    assert fault.remedy.startswith("remove data-parallel-size-local")
