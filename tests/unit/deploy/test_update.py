"""What is left of a change that its operator has left, and what puts it back."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.deploy.batches_left import way_back, what_is_left
from flagscale_deploy.plan.change_order import Batch
from flagscale_deploy.plan.difference import difference
from tests.unit.plan.test_change_order import PLACES, Places, gate, group, router, run

BEFORE = run(group("m/0", 0), group("m/1", 1), group("m/2", 2), router("m"))
AFTER = run(group("m/0", 0, ["--x=1"]), group("m/1", 1, ["--x=1"]), group("m/3", 3), router("m"))
"""m/0 and m/1 restart, m/3 comes, m/2 goes."""


def under_way(done: Collection[str], servers: Collection[str], groups: Collection[str] = ()) -> Any:
    note = {"done": list(done), "groups": list(groups), "step": "stop" if groups else ""}
    return SimpleNamespace(note=note, servers={name: {"model": "m"} for name in servers})


def left(done: Collection[str], servers: Collection[str]) -> list[Batch]:
    return list(what_is_left(BEFORE, AFTER, difference(BEFORE, AFTER), under_way(done, servers), 1))


def left_alone(done: Collection[str], servers: Collection[str], *more: Any, **left: Any) -> list[Batch]:
    """Return what is left where the model has a single group, m/0, that restarts."""
    before, after = run(group("m/0", 0), router("m")), run(group("m/0", 0, ["--x=1"]), router("m"))
    change = under_way(done, servers, **left)
    return list(what_is_left(before, after, difference(before, after), change, 1, more))


def test_what_is_left_are_the_groups_that_are_not_done() -> None:
    assert left([], ["m/0", "m/1", "m/2"]) == [
        Batch("add", ("m/3",)), Batch("change", ("m/0",)), Batch("change", ("m/1",)), Batch("remove", ("m/2",)),
    ]  # fmt: skip
    assert left(["m/3", "m/0"], ["m/0", "m/1", "m/2", "m/3"]) == [
        Batch("change", ("m/1",)), Batch("remove", ("m/2",)),
    ]  # fmt: skip
    assert left(["m/3", "m/0", "m/1", "m/2"], ["m/0", "m/1", "m/3"]) == []


def test_a_group_that_was_there_only_for_a_while_ends_in_any_case() -> None:
    everything = ["m/0", "m/1", "m/2", "m/3"]
    assert left(everything, [*everything, "m/9"]) == [Batch("remove", ("m/9",))]
    back = way_back(AFTER, BEFORE, under_way([], [*everything, "m/9"]), ["m/9"])
    assert list(back) == [Batch("remove", ("m/9",))]


def test_a_gate_that_has_come_is_done_and_goes_again_with_everything() -> None:
    after = run(*AFTER["servers"], gate())
    everything = ["m/0", "m/1", "m/2", "m/3", "m/router", "gate"]
    servers = ["m/0", "m/1", "m/2", "m/3"]
    made = difference(BEFORE, after)
    assert list(what_is_left(BEFORE, after, made, under_way(everything, servers), 1)) == []
    (left,) = what_is_left(BEFORE, after, made, under_way([], servers, everything), 1)
    (back,) = way_back(after, BEFORE, under_way([], servers, everything), everything)
    assert sorted(left.groups) == sorted(back.groups) == sorted(everything)


def test_what_is_left_is_an_outage_where_nothing_serves_meanwhile() -> None:
    assert left_alone([], ["m/0"]) == [Batch("change", ("m/0",), ("m",))]
    assert left_alone([], ["m/0"], groups=["m/0"]) == [Batch("change", ("m/0",))], "it is out by now"
    with_surge = [Batch("change", ("m/0",)), Batch("remove", ("m/1",))]
    assert left_alone(["m/1"], ["m/0", "m/1"]) == with_surge, "the other operator had started it"
    assert left_alone(["m/1"], ["m/0", "m/1"], group("m/1", 1)) == with_surge
    started = [Batch("add", ("m/1",)), *with_surge]
    for servers in (["m/0"], ["m/0", "m/1"]):  # its start may have been begun
        assert left_alone([], servers, group("m/1", 1)) == started


@pytest.mark.parametrize(
    ("touched", "batches"),
    [
        ([], []),
        (["m/3"], [Batch("remove", ("m/3",))]),
        (["m/3", "m/0"], [Batch("change", ("m/0",)), Batch("remove", ("m/3",))]),
        (["m/2"], [Batch("change", ("m/2",))]),  # it is in the records until the change is over
    ],
)
def test_what_was_touched_becomes_what_it_was(touched: list[str], batches: list[Batch]) -> None:
    servers = ["m/0", "m/1", "m/2", "m/3"]
    assert list(way_back(AFTER, BEFORE, under_way(touched, servers), touched)) == batches


@given(PLACES, PLACES, st.data())
def test_wherever_a_change_ends_the_way_back_leads_to_what_ran(old: Places, new: Places, data: Any) -> None:
    before, after = (run(*(group(name, gpu) for name, gpu in places.items())) for places in (old, new))
    changed = sorted({name for name in {**old, **new} if old.get(name) != new.get(name)})
    touched = data.draw(st.lists(st.sampled_from(changed), unique=True)) if changed else []
    present = {name: gpu for name, gpu in old.items() if name not in touched}
    present |= {name: new[name] for name in touched if name in new}
    for batch in way_back(after, before, under_way(touched, {**old, **new}), touched):
        for name in batch.groups:
            present.pop(name, None)
            if batch.kind != "remove":
                present[name] = old[name]
    assert present == old
