"""vllm-router in front of replicas."""

from __future__ import annotations

from flagscale_deploy.config.spec import RouterSpec
from flagscale_deploy.plan.contract import plan_json
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
    assert [each.name for each in made.entrances] == ["qwen/router"]
    assert made.stages[-1].after == ("serve",)
    assert [(step.host, step.script, step.role) for step in made.stages[-1].steps] == [
        ("gpu01", "router_qwen.sh", "router")
    ]
    assert "--worker-urls" in made.scripts["gpu01"]["router_qwen.sh"]
    assert plan_json(made)["router"]["endpoint"] == "http://10.0.0.1:30000/v1"


def test_a_single_replica_has_none_unless_one_was_asked_for() -> None:
    one = model("qwen", tp=1)
    assert planned(TWO, spec(one), seen("gpu01", "gpu02")).routers == ()
    asked = spec(
        one, router=RouterSpec(enabled=True, policy="round_robin", port=9999, options={"request-timeout-secs": 7})
    )
    (router,) = planned(TWO, asked, seen("gpu01", "gpu02")).routers
    assert router.port == 9999
    assert {"--policy=round_robin", "--request-timeout-secs=7"} <= set(router.argv)


def test_none_leaves_it_out_and_clients_see_the_instances() -> None:
    made = planned(TWO, spec(TWINS, router=RouterSpec(enabled=False)), seen("gpu01", "gpu02"))
    assert made.routers == ()
    assert [each.name for each in made.entrances] == ["qwen/0", "qwen/1"]


def test_each_replicated_model_has_its_own() -> None:
    models = (model("a", tp=1, replicas=2, port=1), model("b", tp=1, replicas=2, port=2))
    made = planned(TWO, spec(*models, router=RouterSpec(port=7000)), seen("gpu01", "gpu02"))
    assert [(each.model, each.port) for each in made.routers] == [("a", 7000), ("b", 30000)]
    assert len({each.metrics_port for each in made.routers}) == 2


def test_a_head_without_vllm_router_is_a_fault_that_names_the_way_out() -> None:
    known = {"gpu01": facts("gpu01", router=None), "gpu02": facts("gpu02")}
    (fault,) = faults_of(TWO, spec(TWINS), known)
    assert fault.where == "gpu01"
    assert "deploy.router: none" in fault.remedy
