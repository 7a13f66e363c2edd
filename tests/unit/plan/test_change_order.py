"""In which order a change is made, and where nothing would serve a model meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.plan.change_order import Batch, Takes, change_order, stays_in_front, takes
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.entrances import FRONTS
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from flagscale_deploy.plan.server_change import Difference
from tests.unit.plan.test_difference import BEFORE

Places = Mapping[str, int]
"""The GPU of each group on one host; a port goes with each."""


def group(name: str, gpu: int, flags: Sequence[str] = (), role: str = "driver") -> KeptServer:
    rank: Any = {"name": name, "role": role, "host": "gpu01", "gpus": [gpu], "ports": {"api": 8000 + gpu},
                 "argv": ["vllm", "serve", "m", *flags], "env": {}, "script": "s"}  # fmt: skip
    model = name.partition("/")[0]
    return {"name": name, "model": model, "engine": "vllm", "gpus": {"gpu01": [gpu]}, "ranks": [rank]}


def router(model: str, *flags: str) -> KeptServer:
    rank: Any = {"name": f"{model}/router", "role": "driver", "host": "gpu01", "gpus": [], "ports": {"api": 30000},
                 "argv": ["vllm-router", *flags], "env": {}, "script": "r"}  # fmt: skip
    return {"name": f"{model}/router", "model": model, "engine": "router", "gpus": {}, "ranks": [rank]}


def gate() -> KeptServer:
    return {**router("m"), "name": "gate", "model": "", "engine": "gate"}


def run(*servers: KeptServer) -> KeptRun:
    return {**BEFORE, "servers": list(servers), "versions": {}}


def order(before: KeptRun, after: KeptRun, **more: Any) -> list[Batch]:
    return list(change_order(before, after, difference(before, after), **more))


OLD = [group("m/0", 0), group("m/1", 1), group("m/2", 2)]
NEW = [group("m/0", 0, ["--x=1"]), group("m/1", 1, ["--x=1"]), group("m/2", 2, ["--x=1"])]


def test_groups_of_a_model_are_changed_one_after_the_other_or_as_many_as_may_be_out() -> None:
    before, after = run(*OLD, router("m")), run(*NEW, router("m"))
    assert order(before, after) == [Batch("change", (name,)) for name in ("m/0", "m/1", "m/2")]
    assert order(before, after, at_once=2) == [Batch("change", ("m/0", "m/1")), Batch("change", ("m/2",))]
    assert order(before, after, at_once=3) == [Batch("change", ("m/0", "m/1", "m/2"), ("m",))]


def test_without_a_router_or_with_one_group_alone_nothing_serves_meanwhile() -> None:
    assert order(run(*OLD), run(*NEW))[0].outage == ("m",)
    assert order(run(OLD[0], router("m")), run(NEW[0], router("m"))) == [Batch("change", ("m/0",), ("m",))]


def test_more_groups_serve_while_others_are_changed_and_go_at_last() -> None:
    before, after = run(OLD[0], router("m")), run(NEW[0], router("m"))
    surged = order(before, after, surge=[group("m/1", 5)])
    assert surged == [Batch("add", ("m/1",)), Batch("change", ("m/0",)), Batch("remove", ("m/1",))]


def test_what_is_added_comes_first_and_what_is_removed_goes_last_unless_its_place_is_needed() -> None:
    before = run(*OLD, router("m"))
    assert order(before, run(*NEW[:2], group("m/3", 3), router("m"))) == [
        Batch("add", ("m/3",)), Batch("change", ("m/0",)), Batch("change", ("m/1",)), Batch("remove", ("m/2",)),
    ]  # fmt: skip
    assert order(before, run(*OLD[:2], group("n/0", 2), router("m"))) == [
        Batch("remove", ("m/2",)), Batch("add", ("n/0",)),
    ]  # fmt: skip


def test_groups_that_wait_for_each_others_places_are_changed_together() -> None:
    before = run(group("m/0", 0), group("m/1", 1), router("m"))
    after = run(group("m/0", 1), group("m/1", 0), router("m"))
    assert order(before, after) == [Batch("change", ("m/0", "m/1"), ("m",))]


def test_pools_of_a_model_are_changed_together() -> None:
    before = run(group("m/p0", 0, role="prefill"), group("m/d0", 1, role="decode"), router("m"))
    after = run(group("m/p0", 0, ["--x=1"], "prefill"), group("m/d0", 1, role="decode"), router("m"))
    assert order(before, after) == [Batch("change", ("m/p0", "m/d0"), ("m",))]


def test_a_router_comes_after_what_it_asks_restarts_alone_and_goes_before_what_is_removed() -> None:
    assert order(run(OLD[0]), run(*OLD[:2], router("m"))) == [Batch("add", ("m/1",)), Batch("add", ("m/router",))]
    assert order(run(*OLD[:2], router("m")), run(OLD[0])) == [
        Batch("remove", ("m/router",)), Batch("remove", ("m/1",)),
    ]  # fmt: skip
    assert order(run(*OLD, router("m")), run(*OLD, router("m", "--policy=random"))) == [
        Batch("change", ("m/router",), ("m",))
    ]
    assert order(run(*OLD, router("m")), run(*OLD, router("m", "--worker-urls", "http://a"))) == []


def test_a_gate_comes_or_goes_with_everything_at_once() -> None:
    """Servers with its key and servers without it could not be asked together, and no port is fought over."""
    without, gated = run(*OLD[:2], router("m")), run(*OLD[1:], router("m"), gate())
    for before, after in ((without, gated), (gated, without)):
        assert [(batch.kind, sorted(batch.groups), batch.outage) for batch in order(before, after, at_once=1)] == [
            ("change", ["gate", "m/0", "m/1", "m/2", "m/router"], ("m",))
        ]
        assert stays_in_front(before, after) == set()


NAMES = [f"{model}/{number}" for model in "mn" for number in range(4)]
PLACES = st.permutations(range(8)).flatmap(
    lambda gpus: st.sets(st.sampled_from(NAMES)).map(lambda names: dict(zip(sorted(names), gpus, strict=False)))
)


@given(PLACES, PLACES, st.integers(1, 3), st.booleans())
def test_whatever_runs_and_is_wanted_each_server_is_changed_once_and_none_starts_where_another_serves(
    old: Places, new: Places, at_once: int, routed: bool
) -> None:
    routers = [router("m"), router("n")] if routed else []
    before = run(*(group(name, gpu) for name, gpu in old.items()), *routers)
    after = run(*(group(name, gpu, ["--x=1"] if gpu % 2 else ()) for name, gpu in new.items()), *routers)
    made = difference(before, after)
    serving = held(before)
    for batch in change_order(before, after, made, at_once=at_once):
        for name in batch.groups:
            if batch.kind != "add":
                del serving[name]
        for name in batch.groups if batch.kind != "remove" else ():
            taken = frozenset[tuple[str, str, int]]().union(*serving.values())
            assert not held(after)[name] & taken
            serving[name] = held(after)[name]
    assert serving == held(after)
    assert_each_once(made, change_order(before, after, made, at_once=at_once))


def held(kept: KeptRun) -> dict[str, Takes]:
    return {server["name"]: takes(server) for server in kept["servers"] if server["engine"] not in FRONTS}


def assert_each_once(made: Difference, batches: Sequence[Batch]) -> None:
    names = [name for batch in batches for name in batch.groups]
    assert sorted(names) == sorted(change.name for change in made.changed if change.kind != "reloaded")
