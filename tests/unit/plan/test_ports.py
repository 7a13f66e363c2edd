from __future__ import annotations

from flagscale_deploy.config.spec import RaySpec, RouterSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import ListeningPort
from flagscale_deploy.plan.ports import Ports
from tests.unit.plan.given import OFFLINE, facts, faults_of, host, inventory, model, planned, seen, spec, taken

ONE = inventory("gpu01")


def test_a_port_of_the_config_that_somebody_holds_is_a_fault_that_names_him() -> None:
    (fault,) = faults_of(ONE, spec(model(port=4567)), {"gpu01": facts("gpu01", ports=(taken(4567),))})
    assert fault.where == "qwen.yaml: model_args.qwen"
    assert fault.problem == "port 4567 on gpu01, for qwen/0, is in use by nginx (pid 99)"
    assert fault.remedy == "choose another port, or end the process that uses it"


def test_a_holder_that_cannot_be_seen_is_still_a_holder() -> None:
    (fault,) = faults_of(ONE, spec(model(port=1)), {"gpu01": facts("gpu01", ports=(ListeningPort(1),))})
    assert "is in use by a process" in fault.problem


def test_a_port_that_is_taken_elsewhere_does_not_matter() -> None:
    host_facts = {**seen("gpu01"), "gpu02": facts("gpu02", ports=(taken(4567),))}
    (one,) = planned(inventory("gpu01", "gpu02"), spec(model(port=4567)), host_facts).instances
    assert (one.driver, one.port) == ("gpu01", 4567)


def test_two_models_of_one_host_may_not_want_the_same_port() -> None:
    (fault,) = faults_of(ONE, spec(model("a"), model("b")))
    assert fault.where == "qwen.yaml: model_args.b"
    assert fault.problem == "port 8000 on gpu01 is assigned twice: to a/0 and b/0"


def test_a_port_that_is_chosen_keeps_off_those_that_are_named_whatever_the_order() -> None:
    auto, named = model("a", port=8000, port_auto=True), model("b", port=8000)
    for models in ((auto, named), (named, auto)):
        made = planned(ONE, spec(*models))
        assert {instance.model: instance.port for instance in made.instances} == {"a": 8001, "b": 8000}
    copies = planned(ONE, spec(model("a", port=8000, replicas=2), model("b", port=8001)))
    assert [(instance.name, instance.port) for instance in copies.instances] == [
        ("a/0", 8000),
        ("a/1", 8002),
        ("b/0", 8001),
    ]


def test_an_engine_that_chooses_keeps_off_the_named_ports_of_ray_and_the_router() -> None:
    router = RouterSpec(enabled=True, port=8001, metrics_port=8002)
    serve_spec = spec(model("a", port=8000, port_auto=True), ray=RaySpec("on", port=8000), router=router)
    made = planned(ONE, serve_spec)
    assert (made.instances[0].port, made.ray.port) == (8003, 8000)
    assert (made.routers[0].port, made.routers[0].metrics_port) == (8001, 8002)


def test_a_named_port_that_two_want_is_told_once_with_both() -> None:
    (fault,) = faults_of(ONE, spec(model(port=7000), ray=RaySpec("on", port=7000)))
    assert (fault.where, fault.problem) == (
        "qwen.yaml: deploy.ray.port", "port 7000 on gpu01 is assigned twice: to qwen/0 and Ray",
    )  # fmt: skip


def test_rays_ports_are_the_next_free_ones() -> None:
    host_facts = {
        "gpu01": facts("gpu01", ports=tuple(map(taken, (6379, 6380, 8265, 10001, 52365)))),
        "gpu02": facts("gpu02", ports=tuple(map(taken, (6379, 52365, 52366)))),
    }
    made = planned(inventory("gpu01", "gpu02"), spec(model(port=6381), ray="on"), host_facts)
    assert (made.ray.port, made.ray.dashboard_port, made.ray.client_port) == (6382, 8266, 20000)
    assert [node.agent_port for node in made.ray.nodes] == [52366, 52367]
    assert made.ray.address == "10.0.0.1:6382"


def test_rays_defaults_where_nothing_is_known() -> None:
    made = planned(inventory(host("gpu01", gpus=8)), spec(ray="on"), OFFLINE)
    assert (made.ray.port, made.ray.dashboard_port, made.ray.client_port) == (6379, 8265, 10001)


def test_an_engine_comes_before_ray() -> None:
    assert planned(ONE, spec(model(port=6379), ray="on")).ray.port == 6380


def test_the_users_ray_port_is_not_moved() -> None:
    ray = RaySpec("on", port=7000)
    assert planned(ONE, spec(ray=ray)).ray.port == 7000
    (fault,) = faults_of(ONE, spec(ray=ray), {"gpu01": facts("gpu01", ports=(taken(7000, "redis"),))})
    assert fault.where == "qwen.yaml: deploy.ray.port"
    assert "port 7000 on gpu01, for Ray, is in use by redis (pid 99)" in fault.problem


def test_there_is_no_port_above_the_highest() -> None:
    host_facts = {"gpu01": facts("gpu01", ports=tuple(taken(number) for number in range(65000, 65536)))}
    faults: list[Fault] = []
    Ports(host_facts, "qwen", faults).next_free("gpu01", 65000, "Ray")
    assert [(fault.where, fault.problem) for fault in faults] == [("gpu01", "no port from 65000 on is free for Ray")]


def test_what_another_deployment_recorded_is_taken_also_while_it_starts() -> None:
    record = {"deployment": "other", "boot_id": "boot-gpu01", "ports": {"other/0": 8000, "ray": 6379}}
    host_facts = {"gpu01": facts("gpu01", deployments=(record,))}
    (fault,) = faults_of(ONE, spec(), host_facts)
    assert "port 8000 on gpu01, for qwen/0, is in use by deployment other" in fault.problem
    assert planned(ONE, spec(model(port=1), ray="on"), host_facts).ray.port == 6380


def test_a_deployment_that_runs_is_planned_as_if_it_did_not() -> None:
    mine = (ListeningPort(8000, "0.0.0.0", 5, "vllm", run="qwen/earlier-run"),)
    assert planned(ONE, spec(), {"gpu01": facts("gpu01", ports=mine)}).instances[0].port == 8000
    theirs = (ListeningPort(8000, "0.0.0.0", 5, "vllm", run="qwen2/earlier-run"),)
    (fault,) = faults_of(ONE, spec(), {"gpu01": facts("gpu01", ports=theirs)})
    assert "is in use by vllm (pid 5)" in fault.problem


def test_ports_that_are_chosen_are_none_of_those_that_rays_workers_take() -> None:
    serve_spec = spec(model(tp=1, replicas=2, port=10001), ray="on")
    assert [instance.port for instance in planned(inventory("gpu01"), serve_spec).instances] == [10001, 20000]
    serve_spec = spec(model(tp=1, replicas=2, port=10001), ray="off")
    assert [instance.port for instance in planned(inventory("gpu01"), serve_spec).instances] == [10001, 10002]
