"""Slots for clients: those of one address do not take those of another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.remote.slots import Slots


def test_a_client_too_many_takes_the_place_of_the_oldest_of_the_fullest_address() -> None:
    slots = Slots[str](4)
    assert [slots.enter(client, address) for client, address in (("a", "1"), ("b", "2"), ("c", "2"), ("d", "2"))] == [
        None
    ] * 4
    assert slots.enter("e", "3") == "b"
    assert slots.enter("f", "3") == "c"
    slots.leave("c")  # which has gone already
    assert slots.enter("g", "1") == "a"


def test_one_address_has_its_own_limit() -> None:
    slots = Slots[int](10, 2)
    assert [slots.enter(client, "1") for client in range(4)] == [None, None, 0, 1]
    assert slots.enter(9, "2") is None


@given(st.integers(4, 8), st.lists(st.sampled_from(["crowd", "mob"]), max_size=60))
def test_a_lone_client_stays_as_long_as_another_address_has_more(most: int, addresses: list[str]) -> None:
    slots = Slots[int](most)
    assert slots.enter(-1, "peer") is None
    assert slots.enter(-2, "crowd") is None
    inside = {-1, -2}
    for number, address in enumerate(addresses):
        leaving = slots.enter(number, address)
        inside = (inside | {number}) - {leaving}
        assert len(inside) <= most
        assert -1 in inside
