"""vllm-router in front of replicas."""

from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.config.spec import RouterSpec
from flagscale_deploy.plan.json_schema import plan_json
from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")
TWINS = model("qwen", tp=8, replicas=2, port=8000)


def test_replicas_get_a_router_on_the_head_that_knows_them_by_the_data_network() -> None:
    made = planned(TWO, spec(TWINS), seen("gpu01", "gpu02"))
    (router,) = made.routers
    assert (router.driver, router.port, router.workers) == (
        "gpu01", 30000, ("http://10.0.0.1:8000", "http://10.0.0.2:8000"),
    )  # fmt: skip
    assert router.argv[:4] == ("vllm-router", "--worker-urls", *router.workers)
    assert {"--policy=cache_aware", "--port=30000", "--host=0.0.0.0"} <= set(router.argv)
    assert [server.name for server in made.entrances] == ["qwen/router"]
    assert made.stages[-1].after == ("serve",)
    assert [(step.host, step.script, step.role) for step in made.stages[-1].steps] == [
        ("gpu01", "router_qwen.sh", "router")
    ]
    assert "--worker-urls" in made.scripts["gpu01"]["router_qwen.sh"]
    shown: Any = plan_json(made)
    assert shown["router"]["endpoint"] == "http://10.0.0.1:30000/v1"


def test_a_single_replica_has_none_unless_one_was_asked_for() -> None:
    one = model("qwen", tp=1)
    assert planned(TWO, spec(one), seen("gpu01", "gpu02")).routers == ()
    serve_spec = spec(
        one, router=RouterSpec(enabled=True, policy="round_robin", port=9999, options={"request-timeout-secs": 7})
    )
    (router,) = planned(TWO, serve_spec, seen("gpu01", "gpu02")).routers
    assert router.port == 9999
    assert {"--policy=round_robin", "--request-timeout-secs=7"} <= set(router.argv)


def test_none_leaves_it_out_and_clients_see_the_instances() -> None:
    made = planned(TWO, spec(TWINS, router=RouterSpec(enabled=False)), seen("gpu01", "gpu02"))
    assert made.routers == ()
    assert [server.name for server in made.entrances] == ["qwen/0", "qwen/1"]


def test_each_replicated_model_has_its_own() -> None:
    models = (model("a", tp=1, replicas=2, port=1), model("b", tp=1, replicas=2, port=2))
    made = planned(TWO, spec(*models, router=RouterSpec(port=7000)), seen("gpu01", "gpu02"))
    assert [(router.model, router.port) for router in made.routers] == [("a", 7000), ("b", 30000)]
    assert len({router.metrics_port for router in made.routers}) == 2


def test_a_head_without_vllm_router_is_a_fault_that_names_the_way_out() -> None:
    host_facts = {"gpu01": facts("gpu01", router=None), "gpu02": facts("gpu02")}
    (fault,) = faults_of(TWO, spec(TWINS), host_facts)
    assert fault.where == "gpu01"
    assert "deploy.router: none" in fault.remedy


def test_it_is_reached_where_it_was_told_to_listen() -> None:
    serve_spec = spec(TWINS, router=RouterSpec(host="10.9.9.9", port=7000))
    (router,) = planned(TWO, serve_spec, seen("gpu01", "gpu02")).routers
    assert "--host=10.9.9.9" in router.argv
    assert (router.endpoint, router.local_url) == ("http://10.9.9.9:7000/v1", "http://10.9.9.9:7000")


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
def test_a_replica_that_only_its_own_host_can_reach_is_a_fault_where_the_router_is_on_another(bound: str) -> None:
    twins = model("qwen", tp=8, replicas=2, engine_args={"host": bound})
    (fault,) = faults_of(TWO, spec(twins), seen("gpu01", "gpu02"))
    assert fault.where == "qwen.yaml: model_args.qwen.host"
    assert fault.problem.startswith(f"qwen/1 on gpu02 listens on {bound} only")
    assert "deploy.router: none" in fault.remedy
    one = inventory("gpu01")
    (router,) = planned(one, spec(model("qwen", replicas=2, engine_args={"host": "127.0.0.1"}))).routers
    assert router.workers == ("http://127.0.0.1:8000", "http://127.0.0.1:8001")


def test_a_list_is_repeated_where_vllm_router_takes_it_so() -> None:
    options = {"kv-event-source": ["a=b", "c=d"], "request-id-headers": ["x", "y"]}
    (router,) = planned(TWO, spec(TWINS, router=RouterSpec(options=options)), seen("gpu01", "gpu02")).routers
    assert " ".join(router.argv).endswith("--kv-event-source=a=b --kv-event-source=c=d --request-id-headers x y")
