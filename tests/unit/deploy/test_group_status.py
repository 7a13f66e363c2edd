"""The state of a group of ranks, from what its hosts reply."""

from __future__ import annotations

from typing import Any

import pytest

from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.status import Status, summarize
from flagscale_deploy.errors import HostError
from tests.unit.deploy.given import HOSTS
from tests.unit.deploy.test_status import HANGS, LOST, WELL
from tests.unit.plan.given import inventory, model, planned, seen, spec

MP = planned(inventory(*HOSTS), spec(model(tp=4), executor="mp"), seen(*HOSTS, count=2))
DATA_PARALLEL = planned(
    inventory(*HOSTS), spec(model(engine_args={"data-parallel-size": 4}), ray="off"), seen(*HOSTS, count=2)
)
RUNS = {**WELL, "health": None, "token": None}
GONE = {**RUNS, "alive": False, "why": "its process is gone"}
BROKEN = {**WELL, "token": False, "why": "HTTP 500: EngineCore encountered an issue"}
WORKERS = {"rank": 2}


def reply(host: str, plan: Any = MP, **changed: Any) -> Any:
    """Return what a host says of a group that is well."""
    driver = host == "gpu01"
    recorded = {**record_of(plan, host, {}, ()), "run_id": "run-1", "started_at": 1000.0}
    return {
        "record": recorded, "processes": [], "live": 4, "ray": None, "ranks": {"engine-core": driver, **WORKERS},
        "instances": {"qwen/0": WELL} if driver else {"qwen/0 rank 1": RUNS}, **changed,
    }  # fmt: skip


def status(first: Any, second: Any) -> Status:
    return summarize("qwen", "gpu01", {"gpu01": first, "gpu02": second}, 2000.0)


@pytest.mark.parametrize(
    ("first", "second", "states", "problem"),
    [
        (reply("gpu01"), reply("gpu02"), ("ready", "ready", "running"), ""),
        (reply("gpu01"), reply("gpu02", ranks={"rank": 1}), ("unwell", "ready", "unwell"),
         "rank 1 on gpu02: has 1 of 2 ranks"),
        (reply("gpu01", instances={"qwen/0": BROKEN}), reply("gpu02", ranks={}), ("unwell", "unwell", "unwell"),
         "rank 1 on gpu02: has 0 of 2 ranks; HTTP 500: EngineCore encountered an issue"),
        (reply("gpu01"), reply("gpu02", instances={"qwen/0 rank 1": GONE}, live=0), ("unwell", "ready", "dead"),
         "rank 1 on gpu02: its process is gone"),
        (reply("gpu01", instances={"qwen/0": {**BROKEN, "why": "timed out"}}), LOST, ("unwell", "unwell", "UNKNOWN"),
         "rank 1 on gpu02: its host cannot be reached: no answer; timed out"),
        (reply("gpu01", instances={"qwen/0": HANGS}, ranks={}), reply("gpu02", ranks={}),
         ("starting", "starting", "running"), "it does not answer: timed out"),
    ],
    ids=["well", "a worker is gone, idle", "a worker is gone", "the follower is gone", "its host is cut", "loading"],
)  # fmt: skip
def test_a_group_is_as_well_as_its_ranks(
    first: Any, second: dict[str, Any] | HostError, states: tuple[str, ...], problem: str
) -> None:
    (instance,) = status(first, second).instances
    assert (instance.state, *(rank.state for rank in instance.ranks)) == states
    assert instance.problem == problem


def test_a_group_whose_driver_is_gone_is_dead_and_its_follower_is_seen() -> None:
    current = status(reply("gpu01", instances={"qwen/0": GONE}, live=0), reply("gpu02"))
    assert (current.state, current.instances[0].state, current.instances[0].ranks[1].state) == (
        "dead", "dead", "running",
    )  # fmt: skip


def test_a_deployment_whose_driver_lives_is_unwell_also_where_a_host_has_none_of_it_left() -> None:
    assert status(reply("gpu01", instances={"qwen/0": BROKEN}), reply("gpu02", live=0)).state == "unwell"


def test_a_dead_group_names_the_follower_that_is_gone_too() -> None:
    (instance,) = status(
        reply("gpu01", instances={"qwen/0": GONE}, live=0, ranks={}),
        reply("gpu02", instances={"qwen/0 rank 1": GONE}, live=0, ranks={}),
    ).instances
    assert (instance.state, instance.problem) == (
        "dead", "its process is gone; rank 1 on gpu02: its process is gone",
    )  # fmt: skip


def test_engine_cores_are_counted_where_data_parallel_ranks_have_no_workers() -> None:
    first = reply("gpu01", DATA_PARALLEL, ranks={"engine-core": 2})
    for cores, state, problem in ((2, "ready", ""), (1, "unwell", "rank 1 on gpu02: has 1 of 2 engine cores")):
        (instance,) = status(first, reply("gpu02", DATA_PARALLEL, ranks={"engine-core": cores})).instances
        assert (instance.state, instance.problem) == (state, problem)
