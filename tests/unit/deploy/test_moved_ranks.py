"""Where the ranks of a group are by now, as its driver's supervisor says, and what status shows of its spares."""

from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.status import Status, summarize
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.plan import show_plan
from flagscale_deploy.output.status import show_status
from tests.unit.deploy.test_group_status import GONE, RUNS
from tests.unit.deploy.test_status import LOST, WELL
from tests.unit.plan.given import inventory, model, planned, seen, spec

HOSTS = ("gpu01", "gpu02", "gpu03")
SPARE = RestartSpec(policy="on-failure", spare=True)
PLAN = planned(inventory(*HOSTS), spec(model(tp=4), executor="mp", restart=SPARE), seen(*HOSTS, count=2))
OWN = {"gpu01": "qwen/0", "gpu02": "qwen/0 rank 1", "gpu03": "qwen/0 spare 1"}
STANDS_BY = {**GONE, "restarts": {"state": "spare", "supervised": True, "why": "stands by"}}
MOVED = ["gpu01", "gpu03"]


def reply(host: str, server: Any, **changed: Any) -> Any:
    recorded = {**record_of(PLAN, host, {}, ()), "run_id": "run-1", "started_at": 1000.0}
    ranks = {} if "spare" in str(server) else {"rank": 2}
    return {"record": recorded, "processes": [], "live": 4, "ray": None, "ranks": ranks,
            "instances": {OWN[host]: server}, **changed}  # fmt: skip


def status(hosts: Any, second: Any, third: Any) -> Status:
    first = reply("gpu01", {**WELL, "restarts": {"state": "running", "supervised": True, "hosts": hosts}})
    replies = {"gpu01": first, "gpu02": second, "gpu03": third}
    return summarize("qwen", "gpu01", replies, 2000.0)


def test_a_spare_that_stands_by_is_no_problem() -> None:
    current = status([], reply("gpu02", RUNS), reply("gpu03", STANDS_BY))
    (instance,) = current.instances
    assert (current.state, instance.state, instance.problem, instance.hosts) == ("ready", "ready", "", HOSTS[:2])
    assert [(spare.host, spare.state, spare.role, spare.problem) for spare in instance.spares] == [
        ("gpu03", "spare", "spare", "stands by")
    ]


def test_a_rank_is_where_its_groups_leader_has_moved_it_and_its_host_is_the_spare() -> None:
    current = status(MOVED, reply("gpu02", STANDS_BY), reply("gpu03", RUNS))
    (instance,) = current.instances
    assert (current.state, instance.problem) == ("ready", "rank 1 is on gpu03 instead of gpu02")
    assert (instance.hosts, instance.gpus) == (("gpu01", "gpu03"), {"gpu01": (0, 1), "gpu03": (0, 1)})
    moved, spare = instance.ranks[1], instance.spares[0]
    assert (moved.number, moved.role, moved.host, moved.state) == (1, "follower", "gpu03", "running")
    assert moved.script == "vllm_serve_qwen_0_spare1.sh"
    assert (spare.role, spare.host, spare.state) == ("spare", "gpu02", "spare")


def test_a_moved_rank_that_dies_is_one_of_the_host_that_carries_it() -> None:
    (instance,) = status(MOVED, LOST, reply("gpu03", GONE, ranks={}, live=0)).instances
    assert (instance.state, instance.problem) == ("unwell", "rank 1 on gpu03: its process is gone")


def test_a_lost_host_that_was_replaced_is_still_unknown_and_the_instance_is_ready() -> None:
    current = status(MOVED, LOST, reply("gpu03", RUNS))
    (instance,) = current.instances
    assert (current.state, current.exit_code, instance.state) == ("UNKNOWN", 3, "ready")
    assert (instance.spares[0].state, instance.ranks[1].state) == ("UNKNOWN", "running")


@pytest.mark.parametrize(
    "hosts",
    [None, "gpu03", {}, ["gpu01"], ["gpu01", "gpu09"], ["gpu01", "gpu01"], ["gpu01", 7], ["gpu01", {}], MOVED * 2],
)
def test_hosts_that_cannot_be_are_passed_over(hosts: Any) -> None:
    (instance,) = status(hosts, reply("gpu02", RUNS), reply("gpu03", STANDS_BY)).instances
    assert (instance.state, instance.hosts, instance.problem) == ("ready", ("gpu01", "gpu02"), "")


def test_v_shows_the_spares_and_so_does_plan(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(Console(verbose=True), status([], reply("gpu02", RUNS), reply("gpu03", STANDS_BY)))
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "qwen/0 spare spare spare gpu03 0, 1 stands by" in rows
    show_plan(Console(), PLAN, show_scripts=False)
    assert "  spare    for a rank whose host is lost, on gpu03 [0,1]" in capsys.readouterr().out
    two = planned(inventory(*HOSTS[:2]), spec(model(tp=4), executor="mp", restart=SPARE), seen(*HOSTS[:2], count=2))
    show_plan(Console(), two, show_scripts=False)
    assert "  spare    none: no other host that it may run on has 2 free GPUs" in capsys.readouterr().out
