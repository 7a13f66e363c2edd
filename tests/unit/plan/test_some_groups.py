from __future__ import annotations

import pytest

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.plan.some_groups import some_groups
from tests.unit.plan.given import inventory, model, planned, spec

RESTARTED = RestartSpec(policy="on-failure", boot=True, notify="true")
THREE = planned(
    inventory("gpu01", "gpu02"),
    spec(model(tp=8, replicas=2), restart=RESTARTED, after_stop="true"),
)


def test_a_group_has_its_own_steps_and_scripts_and_what_its_supervisor_calls() -> None:
    part = some_groups(THREE, ["qwen/1"])
    assert [instance.name for instance in part.instances] == ["qwen/1"]
    assert part.servers == part.instances
    assert [(stage.name, stage.after) for stage in part.stages] == [("serve", ())]
    assert [(step.host, step.script) for step in part.stages[0].steps] == [("gpu02", "vllm_serve_qwen_1.sh")]
    assert {host: set(scripts) for host, scripts in part.scripts.items()} == {
        "gpu02": {"vllm_serve_qwen_1.sh", "notify.sh"}
    }
    assert (part.run_id, part.hosts, part.ray) == (THREE.run_id, THREE.hosts, THREE.ray)


def test_a_group_over_several_hosts_has_all_its_ranks() -> None:
    whole = planned(inventory("gpu01", "gpu02"), spec(model(tp=16), executor="mp"))
    part = some_groups(whole, ["qwen/0"])
    assert [step.host for step in part.stages[0].steps] == ["gpu01", "gpu02"]
    assert set(part.scripts) == {"gpu01", "gpu02"}


def test_the_gate_stays_as_it_is() -> None:
    guarded = planned(inventory("gpu01", "gpu02"), spec(model(tp=8, replicas=2), gate=GateSpec()))
    assert guarded.gate is not None
    part = some_groups(guarded, ["qwen/1"])
    assert part.servers == part.instances
    assert set(part.scripts) == {"gpu02"}


def test_a_ray_node_starts_alone_is_waited_for_on_the_head_and_groups_come_after_it() -> None:
    over_ray = planned(inventory("gpu01", "gpu02", "gpu03"), spec(model(tp=24), executor="ray"))
    node = some_groups(over_ray, ["Ray on gpu03"])
    assert [(stage.name, stage.after, [(step.host, step.script) for step in stage.steps]) for stage in node.stages] == [
        ("ray-workers", (), [("gpu03", "ray_worker.sh")]), ("ray-nodes", (), [("gpu01", "ray_nodes.sh")]),
    ]  # fmt: skip
    assert {host: set(scripts) for host, scripts in node.scripts.items()} == {
        "gpu01": {"ray_nodes.sh", "warm.sh"}, "gpu03": {"ray_worker.sh", "warm.sh"},
    }  # fmt: skip
    assert node.servers == ()
    both = some_groups(over_ray, ["qwen/0", "Ray on gpu03"])
    assert both.stages[-1].after == ("ray-workers", "ray-nodes")
    assert some_groups(over_ray, ["qwen/0"]).stages[0].after == ()


def test_a_group_or_node_that_is_not_planned_is_an_error() -> None:
    for name in ("Ray on gpu01", "Ray on gpu09"):  # of a deployment without Ray
        with pytest.raises(KeyError):
            some_groups(THREE, [name])
    with pytest.raises(KeyError):
        some_groups(THREE, ["qwen/2"])


def test_a_gate_that_starts_gets_the_file_that_it_reads() -> None:
    guarded = planned(inventory("gpu01", "gpu02"), spec(model(tp=8, replicas=2), gate=GateSpec()))
    assert set(some_groups(guarded, ["gate"]).scripts["gpu01"]) == {"gate.sh", "gate.json"}
