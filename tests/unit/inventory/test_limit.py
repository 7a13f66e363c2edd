"""Which hosts a pattern picks is compared with Ansible in tests/parity; here what is ours alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.inventory.patterns import limit, without

INVENTORY = parse_inventory("""
hosts: ["gpu[01:06]", "cpu[1:2]", "2001:db8::1"]
groups:
  head: gpu02
  gpu: ["gpu[01:06]"]
  rack: [gpu06, gpu01, cpu1]
""")


def test_hosts_stay_in_the_order_of_the_file_and_groups_keep_what_is_left() -> None:
    limited = limit(INVENTORY, "cpu1,gpu03,gpu01")
    assert limited.names == ("gpu01", "gpu03", "cpu1")
    assert limited.groups["rack"].hosts == ("gpu01", "cpu1")
    assert limited.groups["gpu"].hosts == ("gpu01", "gpu03")
    assert limited["gpu03"] is INVENTORY["gpu03"]
    assert limited.source == INVENTORY.source


def test_the_head_moves_to_the_first_host_where_it_is_left_out() -> None:
    assert limit(INVENTORY, "gpu").head.name == "gpu02"
    assert limit(INVENTORY, "gpu,!head").head.name == "gpu01"


def test_subscripts_count_in_the_order_of_the_group() -> None:
    assert limit(INVENTORY, "rack[0]").names == ("gpu06",)
    assert limit(INVENTORY, "rack[0:1]").names == ("gpu01", "gpu06")


def test_an_ipv6_address_is_one_term() -> None:
    assert limit(INVENTORY, "2001:db8::1").names == ("2001:db8::1",)
    assert "2001:db8::1" not in limit(INVENTORY, "!2001:db8::1").names


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("gpu07", "'gpu07' is not a host or group of inventory"),
        ("all,!gpu3", "'gpu3' is not a host or group"),
        ("gpu01,gpuu", "'gpuu' is not a host or group"),
        ("gpu:&cpu", "'cpu' is not a host or group"),
        ("npu*", "'npu\\*' matches no host"),
        ("gpu:!gpu*", "matches no host"),
        ("gpu[6]", "has 6 hosts"),
        ("gpu[-7]", "has 6 hosts"),
        ("~gpu(", "not a regular expression"),
        ("gpu,!", "expected a name"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        limit(INVENTORY, pattern)


def test_what_is_like_no_name_is_answered_with_where_names_are_told() -> None:
    with pytest.raises(InputError, match=r"is not a host or group of inventory\n.*`hosts` lists them"):
        limit(INVENTORY, "zzz")


def test_a_near_miss_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"did you mean rack\?"):
        limit(INVENTORY, "rock")


terms = st.sampled_from(
    ["gpu", "rack", "head", "all", "gpu0[1:3]".replace("[1:3]", "1"), "gpu0?", "~.*1", "gpu[1:3]", "cpu1"]
)


@settings(deadline=None)
@given(st.lists(terms, min_size=1, max_size=3), st.lists(terms, max_size=2), st.lists(terms, max_size=2))
def test_union_then_intersection_then_exclusion(plain: list[str], both: list[str], less: list[str]) -> None:
    def names(term: str) -> set[str]:
        return set(limit(INVENTORY, term).names)

    expected = set.union(*map(names, plain))
    for term in both:
        expected &= names(term)
    for term in less:
        expected -= names(term)
    # In any order of the terms, as Ansible has it.
    pattern = ",".join([*(f"!{term}" for term in less), *(f"&{term}" for term in both), *plain])
    if expected:
        assert set(limit(INVENTORY, pattern).names) == expected
    else:
        with pytest.raises(InputError):
            limit(INVENTORY, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "~(a+)+$", "~(a|a)*b", "~(a*)*b", "~a*a*a*a*a*a*a*a*b", "~(.*){30}b", "~(?=a*)b", "~(a)\\1", "~" + "(" * 5000,
        "~a{99999999999}", "~" + "a?" * 400, "*a" * 400 + "b", "gpu[" * 20_000, "a," * 60_000, "~[",
        "gpu[" + "1" * 5000 + "]", "~(?P<a", "!" * 5000,
    ],
)  # fmt: skip
def test_no_pattern_takes_long(pattern: str) -> None:
    names = ["a" * 200 + "c", *(f"gpu{number:03}" for number in range(500))]
    inventory = parse_inventory("hosts: [" + ", ".join(names) + "]", "hosts.yaml")
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        limit(inventory, pattern)
    assert time.process_time() - began < 10
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("pattern", [r"~gpu0[0-9]+\d*$", r"~(gpu|cpu)\d{3}", r"~.*pu.*0.*1", r"~(g(p)u)?.*-?\d+"])
def test_ordinary_expressions_match(pattern: str) -> None:
    inventory = parse_inventory("hosts: ['gpu[001:500]']", "hosts.yaml")
    assert "gpu001" in limit(inventory, pattern).names


def test_hosts_that_are_left_out_are_those_that_the_pattern_matches() -> None:
    rest = without(INVENTORY, "gpu03,gpu04,cpu*")
    assert rest.names == ("gpu01", "gpu02", "gpu05", "gpu06", "2001:db8::1")
    assert (rest.head.name, rest.groups["rack"].hosts) == ("gpu02", ("gpu06", "gpu01"))


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("gpu07", "--without: 'gpu07' is not a host or group of inventory"),
        ("npu*", "--without: 'npu\\*' matches no host"),
        ("gpu", "--without: 'gpu' takes out gpu02, the head, where the deployment's state is kept\n.*→ stop, then run"),
        ("all", "takes out gpu02, the head"),
    ],
)
def test_no_host_and_the_head_are_not_left_out(pattern: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        without(INVENTORY, pattern)
