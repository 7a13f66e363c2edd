"""With `deploy.restart.spare`, hosts with free GPUs stand by for the followers of a group."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import PoolSpec, RouterSpec, ServeSpec
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.spares import add_spares
from flagscale_deploy.rendering.render import Templates
from tests.unit.plan.given import TEMPLATES, facts, faults_of, inventory, model, planned, seen, spec

SPARE = RestartSpec(policy="on-failure", spare=True)
FOUR = inventory("gpu01", "gpu02", "gpu03", "gpu04")


def served(*models: Any, **settings: Any) -> ServeSpec:
    return spec(*(models or (model(tp=16),)), executor="mp", restart=SPARE, **settings)


def supervisor_of(script: str) -> dict[str, str]:
    """Return the options of the supervisor that a launch script starts."""
    words = shlex.split(script.replace("$state", "STATE"), comments=True)
    words = words[words.index("STATE/supervisor") : words.index("--")]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words if word.startswith("--"))


def test_every_other_host_with_the_free_gpus_of_a_follower_stands_by() -> None:
    plan = planned(FOUR, served(), {**seen("gpu01", "gpu02", "gpu04"), "gpu03": facts("gpu03", busy=(5,))})
    (instance,) = plan.instances
    assert instance.hosts == ("gpu01", "gpu02")
    (spare,) = instance.spares
    assert (spare.host, spare.number, spare.role, spare.gpus) == ("gpu04", 2, "spare", tuple(range(8)))
    assert "--node-rank=1" in spare.argv
    assert spare.env["VLLM_HOST_IP"] == "10.0.0.4"
    assert not spare.answers
    (serve,) = plan.stages
    assert [(step.host, step.role) for step in serve.steps] == [
        ("gpu01", "engine"),
        ("gpu02", "engine"),
        ("gpu04", "spare"),
    ]
    assert plan.working == ("gpu01", "gpu02", "gpu04")
    assert set(plan.gpus["gpu04"].values()) == {""}, "a spare holds no GPU"
    assert record_of(plan, "gpu04", {}, ())["gpus"] == []
    assert record_of(plan, "gpu04", {}, ())["instances"][0]["spares"][0]["script"] == "vllm_serve_qwen_0_spare1.sh"
    (shown,) = json.loads(json.dumps(plan_json(plan)))["instances"]
    assert shown["spares"][0]["host"] == "gpu04"


def test_each_members_supervisor_knows_the_spares_and_what_is_each_ranks_own() -> None:
    flags = {"data-parallel-size": 12, "data-parallel-size-local": 4}
    plan = planned(FOUR, served(model(engine_args=flags)))
    (instance,) = plan.instances
    assert instance.hosts == ("gpu01", "gpu02", "gpu03")
    options = {host: supervisor_of(next(iter(plan.scripts[host].values()))) for host in FOUR.names}
    for number, name in enumerate(FOUR.names):
        assert options[name]["group-hosts"] == "gpu01,gpu02,gpu03"
        assert options[name]["group-spares"] == "gpu04"
        assert options[name]["group-rank"] == str(number)
        assert options[name]["group-peers"] == "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4"
        assert options[name]["model-path"] == "/models/qwen"
        assert json.loads(options[name]["rank-words"]) == {
            "1": ["--data-parallel-start-rank=4"],
            "2": ["--data-parallel-start-rank=8"],
        }
    assert options["gpu04"]["gpus"] == "0,1,2,3"
    for rank in instance.ranks[1:]:
        assert set(instance.rank_words[rank.number]) <= set(rank.argv)


@pytest.mark.parametrize("restart", [RestartSpec(), RestartSpec(policy="on-failure")])
def test_without_it_nothing_stands_by(restart: RestartSpec) -> None:
    plan = planned(FOUR, replace(served(), restart=restart))
    assert plan.working == ("gpu01", "gpu02")
    assert plan.instances[0].spares == ()
    assert "--group-spares" not in str(plan.scripts)


def test_a_group_of_one_has_no_spares() -> None:
    (instance,) = planned(FOUR, served(model(tp=8))).instances
    assert (instance.spares, instance.rank_words) == ((), {})


def test_a_spare_is_one_of_the_hosts_that_the_model_may_run_on() -> None:
    (instance,) = planned(FOUR, served(model(tp=16, hosts="gpu01,gpu02,gpu04"))).instances
    assert [spare.host for spare in instance.spares] == ["gpu04"]


@pytest.mark.parametrize(
    ("free", "promised"),
    [(range(8), [(0, 1, 2, 3), (4, 5, 6, 7)]), (range(2, 8), [(2, 3, 4, 5), (2, 3, 6, 7)]), (range(3), [None, None])],
)
def test_two_groups_share_gpus_of_a_spare_only_where_there_are_no_others(
    free: Sequence[int], promised: list[tuple[int, ...] | None]
) -> None:
    four = tuple(range(4))
    groups = [
        Placement("qwen", replica, {"gpu01": four, "gpu02": four}, "gpu01", "mp", True, "mp") for replica in range(2)
    ]
    rooms = {name: [*free] if name == "gpu03" else [] for name in FOUR.names}
    placed = add_spares(served(), groups, {"qwen": FOUR.hosts}, rooms)
    assert [placement.spares.get("gpu03") for placement in placed] == promised
    assert not any("gpu04" in placement.spares for placement in placed)


def test_ray_gives_the_gpus_of_a_spare_to_nobody() -> None:
    plan = planned(FOUR, served(ray="on"))
    assert {node.host: node.num_gpus for node in plan.ray.nodes} == dict.fromkeys(FOUR.names, 0)


HYBRID = model(engine_args={"data-parallel-size": 16, "data-parallel-hybrid-lb": True})
UNEVEN = model(engine_args={"data-parallel-size": 13})
POOLED = model(
    engine_args={"data-parallel-size": 4, "data-parallel-size-local": 2},
    prefill=PoolSpec(replicas=1),
    decode=PoolSpec(replicas=1),
)


@pytest.mark.parametrize(
    ("served_model", "busy", "why"),
    [
        (HYBRID, (), "each answers clients at its own host's address"),
        (POOLED, (), "each hands its KV cache over at its own host's address"),
        (UNEVEN, (0, 1, 2), "they have unequal shares of the GPUs"),
    ],
    ids=["hybrid", "pools", "unequal"],
)
def test_groups_whose_ranks_cannot_be_moved_are_refused(served_model: Any, busy: tuple[int, ...], why: str) -> None:
    hosts = inventory("gpu01", "gpu02", "gpu03") if busy else FOUR
    free = {name: facts(name, busy=busy if name == "gpu03" else (0, 1, 2, 3)) for name in hosts.names} if busy else None
    router = RouterSpec() if served_model is HYBRID or served_model is POOLED else RouterSpec(enabled=False)
    faults = faults_of(hosts, served(served_model, router=router), free)
    assert f"deploy.restart.spare moves no rank of replica 0: {why}" in {fault.problem for fault in faults}
    assert {fault.remedy for fault in faults} == {"set deploy.restart.spare: false"}


def test_a_template_that_would_start_the_server_of_a_spare_is_refused() -> None:
    templates = Templates({**TEMPLATES.sources, "vllm_serve.sh.j2": "exec {{ instance.argv }}"}, {})
    with pytest.raises(InputError, match="starts the server of a spare at once"):
        planned(FOUR, served(), templates=templates)
