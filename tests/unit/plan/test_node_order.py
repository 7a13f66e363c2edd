"""When Ray's nodes join, leave and restart while a deployment is changed."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.deploy.batches_left import way_back, what_is_left
from flagscale_deploy.plan.change_order import Batch
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from tests.unit.deploy.test_update import under_way
from tests.unit.plan.test_change_order import group, order, router
from tests.unit.plan.test_difference import BEFORE

EIGHT = [*range(8)]


def over_ray(name: str, *hosts: str, gpu: int = 0, flags: tuple[str, ...] = ()) -> KeptServer:
    """Return a group over Ray with a GPU on each host."""
    server: Any = group(name, gpu, flags)
    server["gpus"] = {host: [gpu] for host in hosts}
    server["ranks"][0] |= {"host": hosts[0], "gpus": [gpu], "env": {"RAY_ADDRESS": "a:1"}}
    return server  # type: ignore[no-any-return]


def run(*servers: KeptServer, nodes: str, **gpus: list[int]) -> KeptRun:
    """Return a run over Ray nodes of these numbers, the first of them the head."""
    hosts = {f"gpu0{number}": gpus.get(f"gpu0{number}", EIGHT) for number in nodes}
    ray: Any = {"enabled": True, "address": "a:1", "nodes": hosts, "scripts": {}}
    return {**BEFORE, "servers": [*servers], "versions": {}, "head": "gpu01", "ray": ray}


SMALL, ROUTER = over_ray("s/0", "gpu01", gpu=1), router("m")
WIDE = over_ray("m/0", "gpu01", "gpu02")


def test_a_node_joins_before_anything_else() -> None:
    after = run(over_ray("m/0", "gpu01", "gpu03"), SMALL, over_ray("m/1", "gpu02", "gpu03", gpu=2), nodes="123")
    assert order(run(WIDE, SMALL, nodes="12"), after) == [
        Batch("add", ("Ray on gpu03",)), Batch("add", ("m/1",)), Batch("change", ("m/0",), ("m",)),
    ]  # fmt: skip


def test_a_node_leaves_when_what_may_run_there_has_stopped_and_before_anything_starts() -> None:
    before = run(over_ray("m/0", "gpu01", "gpu03"), SMALL, group("p/0", 4), nodes="123")
    after = run(WIDE, SMALL, group("p/0", 4), over_ray("n/0", "gpu02", gpu=5), nodes="12")
    assert order(before, after) == [Batch("change", ("m/0", "Ray on gpu03"), ("m",)), Batch("add", ("n/0",))]


def test_a_node_that_nothing_uses_just_leaves_and_what_is_not_to_run_ends_with_it() -> None:
    assert order(run(SMALL, nodes="12"), run(SMALL, nodes="1")) == [Batch("remove", ("Ray on gpu02",))]
    assert order(run(WIDE, SMALL, nodes="12"), run(SMALL, nodes="1")) == [Batch("remove", ("m/0", "Ray on gpu02"))]


def test_a_node_restarts_with_its_groups_and_those_that_join_come_with_it() -> None:
    before = run(over_ray("s/0", "gpu02"), over_ray("t/0", "gpu01", gpu=1), nodes="12")
    after = run(over_ray("s/0", "gpu02"), over_ray("t/0", "gpu01", gpu=1), nodes="123", gpu02=[0])
    assert order(before, after) == [Batch("change", ("s/0", "Ray on gpu02", "Ray on gpu03"), ("s",))]


def test_gpus_that_a_node_gets_are_free_before_it_restarts() -> None:
    pinned = group("p/0", 7)
    pinned["gpus"], pinned["ranks"][0]["host"] = {"gpu02": [7]}, "gpu02"
    before = run(pinned, nodes="12", gpu02=[0])
    after = run(over_ray("m/0", "gpu02", gpu=7), nodes="12", gpu02=[0, 7])
    assert order(before, after) == [
        Batch("remove", ("p/0",)), Batch("change", ("Ray on gpu02",)), Batch("add", ("m/0",)),
    ]  # fmt: skip


FROM = run(over_ray("m/0", "gpu01", "gpu03"), SMALL, nodes="123")
TO = run(over_ray("m/0", "gpu01", "gpu02"), SMALL, nodes="12")
NODE = Batch("change", ("m/0", "Ray on gpu03"), ("m",))


def test_a_change_that_was_left_goes_on_with_the_nodes_that_are_not_done() -> None:
    made = difference(FROM, TO)
    assert what_is_left(FROM, TO, made, under_way([], ["m/0", "s/0"]), 1) == (NODE,)
    assert what_is_left(FROM, TO, made, under_way(NODE.groups, ["m/0", "s/0"]), 1) == ()


def test_a_node_that_left_is_back_before_the_groups_that_used_it() -> None:
    back = way_back(TO, FROM, under_way([], ["m/0", "s/0"]), NODE.groups)
    assert back == (Batch("add", ("Ray on gpu03",)), Batch("change", ("m/0",), ("m",)))


def test_a_node_that_joined_leaves_with_what_was_started_on_it_and_nothing_else() -> None:
    untouched = over_ray("u/0", "gpu01", "gpu02", gpu=3)
    before = run(WIDE, untouched, nodes="12")
    after = run(over_ray("m/0", "gpu01", "gpu03"), untouched, nodes="123")
    assert order(before, after)[0] == Batch("add", ("Ray on gpu03",))
    assert way_back(after, before, under_way([], ["m/0", "u/0"]), ["Ray on gpu03", "m/0"]) == (
        Batch("change", ("m/0", "Ray on gpu03"), ("m",)),
    )
    assert way_back(after, before, under_way([], ["m/0", "u/0"]), ["Ray on gpu03"]) == (
        Batch("remove", ("Ray on gpu03",)),
    )
