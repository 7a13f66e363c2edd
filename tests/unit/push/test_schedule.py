"""The schedule over simulated networks: how long a push takes, what leaves the source, who is left behind."""

from __future__ import annotations

import pytest

from flagscale_deploy.push.schedule import MOST_FAILURES, SOURCE, Schedule
from tests.unit.push.simulation import simulate

EIGHT = [f"gpu{number:02}" for number in range(1, 9)]
PIECES = 96


def last(ready: dict[str, float]) -> float:
    return max(ready.values()) / PIECES


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_many_hosts_take_little_longer_than_one_and_the_source_sends_all_once(hosts: int) -> None:
    result = simulate(PIECES, EIGHT[:hosts])
    assert last(result.ready) < 1.25
    assert result.sent == PIECES
    assert result.moved == PIECES * hosts


def test_orders_that_take_a_piece_s_time_to_arrive_do_not_let_links_stand_still() -> None:
    assert last(simulate(PIECES, EIGHT, delay=1.0).ready) < 1.4


def test_a_slow_host_does_not_hold_up_the_others() -> None:
    result = simulate(PIECES, EIGHT, speed={"gpu03": 0.1})
    slow = result.ready.pop("gpu03")
    assert len(result.ready) == 7
    assert last(result.ready) < 1.5
    assert slow / PIECES < 13  # its own link is the limit
    assert result.sent < 1.1 * PIECES


def test_a_slow_source_is_what_all_wait_for_and_nothing_else() -> None:
    result = simulate(PIECES, EIGHT, speed={SOURCE: 0.1})
    assert last(result.ready) < 10.3
    assert result.sent == PIECES


def test_a_host_that_dies_stops_nobody() -> None:
    result = simulate(PIECES, EIGHT, dies={"gpu03": 20})
    assert set(result.ready) == set(EIGHT) - {"gpu03"}
    assert last(result.ready) < 1.5
    assert result.sent < 1.2 * PIECES


def test_what_hosts_have_is_not_sent_again() -> None:
    result = simulate(PIECES, EIGHT[:4], have={"gpu01": range(PIECES), "gpu02": range(PIECES // 2)})
    assert result.sent == 0
    assert result.moved == 2 * PIECES + PIECES // 2


def test_hosts_that_cannot_reach_each_other_get_all_from_the_source() -> None:
    walls = {(one, other) for one in EIGHT[:3] for other in EIGHT[:3]}
    result = simulate(PIECES, EIGHT[:3], unreachable=walls)
    assert set(result.ready) == set(EIGHT[:3])
    assert result.sent == 3 * PIECES


def test_a_host_that_reaches_one_other_only_gets_all_through_it() -> None:
    walls = {(other, "gpu03") for other in ("gpu01", SOURCE)}
    result = simulate(PIECES, EIGHT[:3], unreachable=walls)
    assert set(result.ready) == set(EIGHT[:3])
    assert result.sent <= PIECES + 1


def test_a_host_that_nobody_reaches_is_told_apart_from_one_that_waits() -> None:
    walls = {(other, "gpu03") for other in (*EIGHT[:2], SOURCE)}
    result = simulate(PIECES, EIGHT[:3], unreachable=walls)
    assert set(result.ready) == {"gpu01", "gpu02"}
    assert result.stuck == ["gpu03"]


def test_a_late_transfer_is_given_up_where_another_has_the_piece_and_not_asked_for_there_again() -> None:
    schedule = Schedule(1, {"a": [0], "b": [0], "c": []})
    (order,) = schedule.next(0.0)
    assert order.target == "c"
    assert schedule.next(29.0) == []
    (given_up,) = schedule.next(31.0)
    assert (given_up.cancel, given_up.origin) == (True, order.origin)
    assert schedule.mark_failed("c", 0, "cancelled") is None
    (again,) = schedule.next(31.0)
    assert again.origin not in (order.origin, SOURCE)
    schedule.mark_received("c", 0, 32.0)
    assert schedule.done


def test_a_pair_that_cannot_connect_is_named_once() -> None:
    schedule = Schedule(4, {"a": range(4), "b": []})
    orders = schedule.next(0.0)
    assert {order.origin for order in orders} == {"a"}
    named = [schedule.mark_failed("b", order.piece, "connect") for order in orders]
    assert named == [None, "a"] + [None] * (len(orders) - 2)
    assert {order.origin for order in schedule.next(1.0)} == {SOURCE}


def test_without_the_source_hosts_still_share_what_they_have() -> None:
    schedule = Schedule(2, {"a": [0], "b": [1]})
    schedule.mark_unreachable(SOURCE)
    orders = schedule.next(0.0)
    assert {(order.target, order.piece, order.origin) for order in orders} == {("a", 1, "b"), ("b", 0, "a")}
    schedule.mark_lost("b")
    assert schedule.mark_failed("a", 1, "transfer") is None
    assert schedule.next(1.0) == []
    assert schedule.unservable() == ["a"]


def test_a_host_that_claims_what_it_was_not_sent_is_not_believed() -> None:
    schedule = Schedule(2, {"a": [], "b": []})
    schedule.mark_received("a", 1 << 40, 0.0)
    schedule.mark_received("a", 1, 0.0)
    assert not schedule.has_all("a")
    assert {order.origin for order in schedule.next(0.0)} == {SOURCE}


def test_a_host_that_cancels_by_itself_has_failed_to_fetch() -> None:
    """Else it could be asked again for ever."""
    schedule = Schedule(1, {"a": [0], "b": []})
    schedule.mark_unreachable(SOURCE)
    for _ in range(MOST_FAILURES):
        (order,) = schedule.next(0.0)
        schedule.mark_failed("b", order.piece, "cancelled")
    assert schedule.next(0.0) == []
    assert schedule.unservable() == ["b"]
