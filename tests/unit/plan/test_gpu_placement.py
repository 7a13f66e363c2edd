from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.errors import CheckError, Fault, InputError
from flagscale_deploy.facts.model import Gpu, GpuProcess
from flagscale_deploy.plan.model import InstancePlan, Plan
from tests.unit.plan.given import OFFLINE, facts, faults_of, host, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")


def only(plan: Plan) -> InstancePlan:
    (instance,) = plan.instances
    return instance


def test_an_instance_that_fits_on_one_host_is_pinned_to_its_first_free_gpus() -> None:
    one = only(planned(TWO, spec(model(tp=2))))
    assert (one.gpus, one.driver, one.executor) == ({"gpu01": (0, 1)}, "gpu01", "mp")
    assert one.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "RAY_ADDRESS" not in one.env
    assert not any("distributed-executor-backend" in word for word in one.argv)


def test_one_rank_needs_no_executor_of_several_processes() -> None:
    assert only(planned(TWO, spec(model()))).executor == "uni"


def test_an_instance_that_fits_on_no_host_spans_hosts_by_ray() -> None:
    one = only(planned(TWO, spec(model(tp=16))))
    assert one.gpus == {"gpu01": tuple(range(8)), "gpu02": tuple(range(8))}
    assert (one.driver, one.executor) == ("gpu01", "ray")
    assert "--distributed-executor-backend=ray" in one.argv
    assert one.env["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert "CUDA_VISIBLE_DEVICES" not in one.env


def test_the_users_own_backend_is_left_alone() -> None:
    serve_spec = model(tp=16, engine_args={"distributed-executor-backend": "ray"})
    assert [word for word in only(planned(TWO, spec(serve_spec))).argv if "backend" in word] == [
        "--distributed-executor-backend=ray"
    ]


def test_a_backend_of_one_host_never_spans() -> None:
    (fault,) = faults_of(TWO, spec(model(tp=16, engine_args={"distributed-executor-backend": "external_launcher"})))
    assert fault.where == "qwen.yaml: model_args.qwen"
    assert "needs 16 GPUs on one host (distributed-executor-backend is external_launcher)" in fault.problem
    assert "gpu01 8, gpu02 8" in fault.problem


def test_ray_on_one_host_where_the_user_wants_it_is_not_pinned() -> None:
    made = planned(TWO, spec(model(tp=2, engine_args={"distributed-executor-backend": "ray"})))
    one = only(made)
    assert (one.executor, one.gpus) == ("ray", {"gpu01": (0, 1)})
    assert "CUDA_VISIBLE_DEVICES" not in one.env
    assert [node.num_gpus for node in made.ray.nodes] == [8, 8]


def test_spanning_takes_the_fewest_hosts_in_the_order_of_the_inventory() -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    host_facts = {name: facts(name, count) for name, count in (("gpu01", 2), ("gpu02", 8), ("gpu03", 4), ("gpu04", 8))}
    one = only(planned(hosts, spec(model(tp=12)), host_facts))
    assert one.gpus == {"gpu02": tuple(range(8)), "gpu04": tuple(range(4))}
    assert one.driver == "gpu02"


def test_the_head_comes_first() -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03", head="gpu03")
    made = planned(hosts, spec(model(tp=16)))
    assert made.head == "gpu03"
    assert only(made).hosts == ("gpu03", "gpu01")
    assert [node.host for node in made.ray.nodes] == ["gpu03", "gpu01", "gpu02"]


def test_models_and_replicas_share_no_gpu() -> None:
    serve_spec = spec(model("a", tp=4, port=1001), model("b", tp=2, replicas=3, port=1002))
    hosts = inventory("gpu01", "gpu02", "gpu03")
    host_facts = {"gpu01": facts("gpu01", 4), "gpu02": facts("gpu02", 2), "gpu03": facts("gpu03", 4)}
    made = planned(hosts, serve_spec, host_facts)
    assert [(instance.gpus, instance.port) for instance in made.instances] == [
        ({"gpu01": (0, 1, 2, 3)}, 1001),
        ({"gpu02": (0, 1)}, 1002),
        ({"gpu03": (0, 1)}, 1002),
        ({"gpu03": (2, 3)}, 1003),
    ]


def test_as_many_replicas_as_the_free_gpus_carry_spread_over_hosts() -> None:
    serve_spec = spec(model("fixed", tp=4, port=1001), model("many", tp=2, replicas="auto", port=1002))
    host_facts = {"gpu01": facts("gpu01", 8), "gpu02": facts("gpu02", 5)}
    made = planned(inventory("gpu01", "gpu02"), serve_spec, host_facts)
    assert [
        (instance.model, instance.driver, instance.gpus[instance.driver], instance.port) for instance in made.instances
    ] == [
        ("fixed", "gpu02", (0, 1, 2, 3), 1001),
        ("many", "gpu01", (0, 1), 1002),
        ("many", "gpu01", (2, 3), 1003),
        ("many", "gpu01", (4, 5), 1004),
        ("many", "gpu01", (6, 7), 1005),
    ]


def test_a_model_stays_on_the_hosts_it_is_restricted_to() -> None:
    serve_spec = spec(model("a", tp=1, hosts="gpu02"))
    made = planned(inventory("gpu01", "gpu02"), serve_spec, seen("gpu01", "gpu02"))
    assert made.instances[0].driver == "gpu02"


def test_a_pattern_that_names_no_host_is_told_of_every_model_with_its_own_key() -> None:
    places = {"hosts": "qwen.yaml: deploy.models.a.hosts"}
    serve_spec = spec(model("a", hosts="gpu9", places=places, port=1), model("b", hosts="gpu8", port=2))
    one, two = faults_of(TWO, serve_spec)
    assert one.where == "qwen.yaml: deploy.models.a.hosts"
    assert "gpu9" in one.problem
    assert one.remedy == "did you mean gpu02?"
    assert "gpu8" in two.problem


def test_a_resource_that_a_model_asks_for_is_the_type_of_its_hosts() -> None:
    hosts = inventory("gpu01", host("gpu02", type="A100"))
    assert only(planned(hosts, spec(model(host_types=("A100",))))).driver == "gpu02"
    serve_spec = model(host_types=("H200",), places={"resources": "qwen.yaml: deploy.models.qwen.resources"})
    (fault,) = faults_of(hosts, spec(serve_spec))
    assert (fault.where, fault.problem) == (
        "qwen.yaml: deploy.models.qwen.resources",
        "needs hosts of type H200, but gpu01 is gpu, gpu02 is A100",
    )
    assert fault.remedy
    (fault,) = faults_of(hosts, spec(model(host_types=("A100", "gpu"))))
    assert "of type gpu and A100" in fault.problem


def test_copies_that_find_no_room_are_told_with_what_there_was_and_how_many_fit() -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03", "gpu04")
    (fault,) = faults_of(hosts, spec(model("a", tp=8, port=1), model("b", tp=2, replicas=20, port=2)))
    assert fault.problem == (
        "num_replicas is 20, and each needs 2 GPUs: 40 in all; free GPUs: gpu01 0, gpu02 8, gpu03 8, gpu04 8"
    )
    assert fault.remedy.startswith("12 fit: set num_replicas to 12 (or auto)")


def test_where_there_is_no_gpu_at_all_the_way_to_serve_on_cpu_is_named() -> None:
    (fault,) = faults_of(inventory(host("gpu01", type="cpu")), spec())
    assert "serve on CPU with deploy.models.qwen.num_gpus=0" in fault.remedy


def test_the_next_free_port_is_taken_where_that_was_asked_for() -> None:
    serve_spec = spec(model("a", tp=1, port=1000), model("b", tp=1, port=1000, port_auto=True))
    made = planned(inventory("gpu01"), serve_spec, seen("gpu01"))
    assert [instance.port for instance in made.instances] == [1000, 1001]


def test_two_models_on_one_host_get_different_gpus() -> None:
    made = planned(inventory("gpu01"), spec(model("a", tp=2, port=1), model("b", tp=4, port=2)))
    assert [instance.gpus["gpu01"] for instance in made.instances] == [(0, 1), (2, 3, 4, 5)]


def test_what_finds_no_room_names_what_is_free_and_who_holds_the_rest() -> None:
    (fault,) = faults_of(TWO, spec(model(tp=16)), seen("gpu01", "gpu02", busy=[3]))
    assert "replica 0 needs 16 GPUs; free GPUs: gpu01 7, gpu02 7" in fault.problem
    assert "gpu01 GPU 3: python train.py (pid 4711, alice)" in fault.problem
    assert "--force" in fault.remedy


def test_force_hands_out_busy_gpus() -> None:
    assert only(planned(TWO, spec(model(tp=16)), seen("gpu01", "gpu02", busy=[3]), force=True)).executor == "ray"


def test_busy_gpus_are_passed_over() -> None:
    one = only(planned(inventory("gpu01"), spec(model(tp=2)), seen("gpu01", busy=[0, 2])))
    assert one.gpus == {"gpu01": (1, 3)}


def test_memory_that_nobody_can_be_seen_to_hold_makes_a_gpu_busy() -> None:
    host_facts = {"gpu01": facts("gpu01", gpus=(Gpu(0, memory_total_mib=1000, memory_used_mib=101), Gpu(1)))}
    assert only(planned(inventory("gpu01"), spec(), host_facts)).gpus == {"gpu01": (1,)}
    host_facts = {"gpu01": facts("gpu01", gpus=(Gpu(0, memory_total_mib=1000, memory_used_mib=100), Gpu(1)))}
    assert only(planned(inventory("gpu01"), spec(), host_facts)).gpus == {"gpu01": (0,)}


def recorded(name: str, **changed: Any) -> dict[str, Any]:
    return {"deployment": name, "boot_id": "boot-gpu01", "gpus": [0, 1], **changed}


@pytest.mark.parametrize(
    ("record", "free"),
    [
        (recorded("other"), (2,)),
        (recorded("qwen"), (0,)),
        (recorded("other", stopped_at=1.0), (0,)),
        (recorded("other", boot_id="an-earlier-boot"), (0,)),
    ],
    ids=["another deployment", "our own, from before", "stopped", "before the host was restarted"],
)
def test_gpus_recorded_for_another_deployment_are_taken(record: dict[str, Any], free: tuple[int, ...]) -> None:
    host_facts = {"gpu01": facts("gpu01", deployments=(record,))}
    assert only(planned(inventory("gpu01"), spec(), host_facts)).gpus == {"gpu01": free}


@pytest.mark.parametrize(
    ("record", "index"), [(recorded("qwen"), 0), (recorded("qwen", stopped_at=1.0), 1), (recorded("qwen2"), 2)]
)
def test_a_deployment_that_runs_is_planned_as_if_its_gpus_were_free(record: dict[str, Any], index: int) -> None:
    """Processes on a GPU can't tell whose they are: vLLM's engine renames itself, and its marker is lost."""
    at_work = Gpu(0, memory_total_mib=100, memory_used_mib=90, processes=(GpuProcess(7, 90, command="VLLM::Engine"),))
    host_facts = {"gpu01": facts("gpu01", gpus=(at_work, Gpu(1), Gpu(2)), deployments=(record,))}
    assert only(planned(inventory("gpu01"), spec(), host_facts)).gpus == {"gpu01": (index,)}


def test_another_deployment_is_named_where_it_is_in_the_way() -> None:
    (fault,) = faults_of(inventory("gpu01"), spec(model(tp=8)), {"gpu01": facts("gpu01", deployments=(recorded("x"),))})
    assert "gpu01 GPU 0: deployment x" in fault.problem


@pytest.mark.parametrize("place", ["host", "spec"])
def test_cuda_visible_devices_limits_what_is_handed_out(place: str) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "4, 5,6"}
    hosts = inventory(host("gpu01", env=env if place == "host" else {}))
    made = planned(hosts, spec(model(tp=2), env=env if place == "spec" else {}, ray="on"))
    assert only(made).gpus == {"gpu01": (4, 5)}
    assert only(made).env["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert made.ray.nodes[0].visible_gpus == (6,)
    (fault,) = faults_of(hosts, spec(model(tp=4), env=env if place == "spec" else {}))
    assert "free GPUs: gpu01 3" in fault.problem


def test_the_hosts_own_cuda_visible_devices_wins() -> None:
    hosts = inventory(host("gpu01", env={"CUDA_VISIBLE_DEVICES": "1"}))
    assert only(planned(hosts, spec(env={"CUDA_VISIBLE_DEVICES": "2"}))).gpus == {"gpu01": (1,)}


def test_the_number_in_the_inventory_is_a_limit() -> None:
    (fault,) = faults_of(inventory(host("gpu01", gpus=2)), spec(model(tp=4)))
    assert "free GPUs: gpu01 2" in fault.problem


def test_fewer_gpus_than_the_inventory_says_is_a_fault_with_the_drivers_words() -> None:
    host_facts = {"gpu01": facts("gpu01", 1, gpu_error="NVML: Driver/library version mismatch")}
    (fault,) = faults_of(inventory(host("gpu01", gpus=2)), spec(), host_facts)
    assert (fault.where, fault.problem) == (
        "gpu01", "the inventory says 2 GPUs, the host has 1 (NVML: Driver/library version mismatch)",
    )  # fmt: skip


def test_accelerators_that_nvidia_smi_does_not_know_are_believed() -> None:
    made = planned(inventory(host("gpu01", gpus=4, type="npu")), spec(model(tp=4)), {"gpu01": facts("gpu01", 0)})
    assert only(made).gpus == {"gpu01": (0, 1, 2, 3)}


def test_a_cpu_host_has_no_gpu() -> None:
    host_facts = {"gpu01": facts("gpu01", 8), "gpu02": facts("gpu02", 8)}
    made = planned(inventory(host("gpu01", type="cpu"), "gpu02"), spec(model(tp=8), ray="on"), host_facts)
    assert only(made).gpus == {"gpu02": tuple(range(8))}
    assert [node.num_gpus for node in made.ray.nodes] == [0, 0]


def test_models_without_gpus_are_spread() -> None:
    made = planned(TWO, spec(*(model(name, num_gpus=0, port=at) for at, name in enumerate("abc", 1))))
    assert [(instance.driver, dict(instance.gpus)) for instance in made.instances] == [
        ("gpu01", {"gpu01": ()}), ("gpu02", {"gpu02": ()}), ("gpu01", {"gpu01": ()}),
    ]  # fmt: skip
    assert made.instances[0].env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("num_gpus", "engine_args", "sizes"),
    [
        (1, {"tensor-parallel-size": 2}, "2 × 1 × 1 = 2"),
        (4, {"tensor-parallel-size": 2, "pipeline-parallel-size": 3}, "2 × 3 × 1 = 6"),
        (8, {"tensor-parallel-size": 2, "data-parallel-size": 2}, "2 × 1 × 2 = 4"),
    ],
)
def test_num_gpus_must_agree_with_the_parallel_sizes(num_gpus: int, engine_args: dict[str, int], sizes: str) -> None:
    (fault,) = faults_of(TWO, spec(model(num_gpus=num_gpus, engine_args=engine_args)))
    assert fault.where == "qwen.yaml: model_args.qwen"
    assert fault.problem == f"num_gpus is {num_gpus}, but tensor × pipeline × data parallel size is {sizes}"


def test_the_world_size_counts_all_three_kinds() -> None:
    serve_spec = model(engine_args={"tensor-parallel-size": 2, "pipeline-parallel-size": 2, "data-parallel-size": 2})
    assert only(planned(TWO, spec(serve_spec))).gpus == {"gpu01": tuple(range(8))}


def test_offline_needs_the_number_of_gpus_in_the_inventory() -> None:
    (fault,) = faults_of(inventory("gpu01", host("gpu02", gpus=8)), spec(model(tp=8)), OFFLINE)
    assert (fault.where, fault.problem) == ("gpu01", "its number of GPUs is unknown without contacting it")
    assert only(planned(inventory(host("gpu01", gpus=8)), spec(model(tp=8)), OFFLINE)).gpus == {
        "gpu01": tuple(range(8))
    }


def test_faults_are_input_errors_where_no_host_was_contacted() -> None:
    with pytest.raises(InputError):
        planned(inventory(host("gpu01", gpus=1)), spec(model(tp=2)), OFFLINE)
    with pytest.raises(CheckError):
        planned(inventory("gpu01"), spec(model(tp=16)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from([1, 2, 4, 8, 12]), st.integers(1, 3)), min_size=1, max_size=4),
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=6),
)
def test_whatever_the_hosts_every_gpu_belongs_to_one_and_ray_counts_the_rest(
    counts: list[int], sizes: list[tuple[int, int]], busy: set[tuple[int, int]]
) -> None:
    names = [f"gpu{at:02}" for at in range(1, len(counts) + 1)]
    host_facts = {
        name: facts(name, count, busy=[index for at, index in busy if at == number])
        for number, (name, count) in enumerate(zip(names, counts, strict=True))
    }
    models = [model(f"m{at}", tp=tp, replicas=replicas, port=9000 + at) for at, (tp, replicas) in enumerate(sizes)]
    faults: tuple[Fault, ...] = ()
    try:
        made = planned(inventory(*names), spec(*models, ray="on"), host_facts)
    except CheckError as error:
        faults = error.faults
    assert all("free GPUs: " in fault.problem or "assigned twice" in fault.problem for fault in faults)
    if faults:
        return
    held = [
        (name, index) for instance in made.instances for name, indexes in instance.gpus.items() for index in indexes
    ]
    assert len(held) == len(set(held))
    theirs = {(names[at], index) for at, index in busy if at < len(names)}
    assert not theirs & set(held)
    for instance in made.instances:
        tp = sizes[int(instance.model[1:])][0]
        assert sum(map(len, instance.gpus.values())) == tp
        assert all(instance.gpus.values())
        assert instance.driver == instance.hosts[0]
        assert (instance.executor == "ray") == (len(instance.hosts) > 1)
    for node in made.ray.nodes:
        pinned = {
            index
            for instance in made.instances
            if instance.executor != "ray"
            for index in instance.gpus.get(node.host, ())
        }
        mine = {gpu.index for gpu in host_facts[node.host].gpus if not gpu.processes} - pinned
        assert node.num_gpus == len(mine)
        assert node.visible_gpus is None or set(node.visible_gpus) == mine
