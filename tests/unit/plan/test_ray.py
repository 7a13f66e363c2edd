from __future__ import annotations

from typing import Literal

import pytest

from flagscale_deploy.config.spec import RaySpec
from tests.unit.plan.given import RUN, facts, faults_of, host, inventory, model, planned, spec

TWO = inventory("gpu01", "gpu02")


@pytest.mark.parametrize(
    ("mode", "tp", "enabled"),
    [("auto", 8, False), ("auto", 16, True), ("on", 8, True), ("on", 16, True), ("off", 8, False)],
)
def test_when_there_is_a_cluster(mode: Literal["auto", "on", "off"], tp: int, enabled: bool) -> None:
    made = planned(TWO, spec(model(tp=tp), ray=mode))
    assert made.ray.enabled is enabled
    assert [node.host for node in made.ray.nodes] == (["gpu01", "gpu02"] if enabled else [])
    assert any("ray" in name for scripts in made.scripts.values() for name in scripts) is enabled


def test_off_is_a_fault_where_an_instance_needs_ray() -> None:
    (fault,) = faults_of(TWO, spec(model(tp=16), ray="off"))
    assert fault.where == "qwen.yaml: model_args.qwen"
    assert fault.problem == "replica 0 needs Ray, and deploy.ray is off"
    assert fault.remedy == "set deploy.ray: auto"


def test_ray_counts_what_pinned_instances_leave() -> None:
    made = planned(TWO, spec(model("a", tp=2, port=1), model("b", tp=12, port=2)))
    assert [(instance.gpus, instance.executor) for instance in made.instances] == [
        ({"gpu01": (0, 1)}, "mp"),
        ({"gpu01": (2, 3, 4, 5, 6, 7), "gpu02": (0, 1, 2, 3, 4, 5)}, "ray"),
    ]
    assert [(node.host, node.num_gpus, node.visible_gpus) for node in made.ray.nodes] == [
        ("gpu01", 6, (2, 3, 4, 5, 6, 7)),
        ("gpu02", 8, None),
    ]


def test_ray_is_not_told_of_gpus_that_others_use() -> None:
    made = planned(TWO, spec(model(tp=14)), {"gpu01": facts("gpu01", busy=[7]), "gpu02": facts("gpu02")})
    assert [(node.num_gpus, node.visible_gpus) for node in made.ray.nodes] == [(7, tuple(range(7))), (8, None)]
    assert "export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6\n" in made.scripts["gpu01"]["ray_head.sh"]
    assert "CUDA_VISIBLE_DEVICES" not in made.scripts["gpu02"]["ray_worker.sh"]


def test_a_node_whose_gpus_are_all_pinned_sees_none() -> None:
    made = planned(inventory("gpu01"), spec(model(tp=8), ray="on"))
    assert (made.ray.nodes[0].num_gpus, made.ray.nodes[0].visible_gpus) == (0, ())
    assert "export CUDA_VISIBLE_DEVICES=''\n" in made.scripts["gpu01"]["ray_head.sh"]


def test_the_nodes_have_roles_addresses_and_custom_resources() -> None:
    hosts = inventory(host("gpu01", type="A100"), host("gpu02", type="npu", gpus=4), host("gpu03", type="cpu"))
    host_facts = {"gpu01": facts("gpu01"), "gpu02": facts("gpu02", 0), "gpu03": facts("gpu03", 0)}
    made = planned(hosts, spec(ray="on"), host_facts)
    assert [(node.role, node.node_ip, node.resources) for node in made.ray.nodes] == [
        ("head", "10.0.0.1", {"A100": 8.0}),
        ("worker", "10.0.0.2", {"npu": 3.0}),
        ("worker", "10.0.0.3", {}),
    ]
    assert """--resources='{"A100": 8.0}'""" in made.scripts["gpu01"]["ray_head.sh"]
    assert "--resources" not in made.scripts["gpu03"]["ray_worker.sh"]


def test_a_custom_resource_is_counted_as_the_gpus_are() -> None:
    made = planned(inventory(host("gpu01", type="A100", gpus=4)), spec(model(tp=1), ray="on"))
    assert (made.ray.nodes[0].num_gpus, made.ray.nodes[0].resources) == (3, {"A100": 3.0})
    none_left = planned(inventory(host("gpu01", type="A100", gpus=4)), spec(model(tp=4), ray="on"))
    assert none_left.ray.nodes[0].resources == {}


def test_ray_can_place_a_model_on_the_hosts_that_it_may_have_only() -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03")
    made = planned(hosts, spec(model(tp=12, hosts="gpu02,gpu03")))
    assert made.instances[0].gpus == {"gpu02": tuple(range(8)), "gpu03": (0, 1, 2, 3)}
    assert [(node.host, node.num_gpus, node.visible_gpus) for node in made.ray.nodes] == [
        ("gpu01", 0, ()), ("gpu02", 8, None), ("gpu03", 4, (0, 1, 2, 3)),
    ]  # fmt: skip
    unrestricted = planned(hosts, spec(model(tp=12)))
    assert [node.num_gpus for node in unrestricted.ray.nodes] == [8, 8, 8]


def test_the_dashboard_is_as_asked_for() -> None:
    made = planned(inventory("gpu01"), spec(ray=RaySpec("on", dashboard=False)))
    assert "--include-dashboard=false" in made.scripts["gpu01"]["ray_head.sh"]


def test_the_session_is_the_runs_own() -> None:
    one, two = (planned(inventory("gpu01"), spec(ray="on"), run_id=run_id) for run_id in (RUN, RUN + "x"))
    assert one.ray.session != two.ray.session
    assert len(one.ray.session) == 8
    assert f'/tmp/fsd-$(id -u)-"{one.ray.session}' in one.scripts["gpu01"]["ray_head.sh"]


def test_ray_waits_for_every_node_with_its_gpus() -> None:
    script = planned(TWO, spec(model("a", tp=2, port=1), model("b", tp=12, port=2))).scripts["gpu01"]["ray_nodes.sh"]
    assert """'{"10.0.0.1": 6, "10.0.0.2": 8}'""" in script
