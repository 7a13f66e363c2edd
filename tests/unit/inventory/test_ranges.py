from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.inventory.ranges import expand, split_login, split_port


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("gpu01", ["gpu01"]),
        ("gpu[1:3]", ["gpu1", "gpu2", "gpu3"]),
        ("gpu[08:11]", ["gpu08", "gpu09", "gpu10", "gpu11"]),
        ("gpu[:2].lan", ["gpu0.lan", "gpu1.lan", "gpu2.lan"]),
        ("n[1:9:4]", ["n1", "n5", "n9"]),
        ("r[a:c]", ["ra", "rb", "rc"]),
        ("r[y:B]", ["ry", "rz", "rA", "rB"]),
        ("r[a:b]-n[01:02]", ["ra-n01", "ra-n02", "rb-n01", "rb-n02"]),
        ("10.0.0.[7:8]", ["10.0.0.7", "10.0.0.8"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("[5:5]", ["5"]),
        ("gpu[01-03,07]", ["gpu01", "gpu02", "gpu03", "gpu07"]),
        ("r[1-2]n[5,9]", ["r1n5", "r1n9", "r2n5", "r2n9"]),
    ],
)
def test_a_pattern_stands_for_its_names_in_order(pattern: str, names: list[str]) -> None:
    assert expand(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("gpu[1]", r"expected \[begin:end\]"),
        ("gpu[1:]", r"expected \[begin:end\]"),
        ("gpu[3:1]", "no members"),
        ("gpu[c:a]", "no members"),
        ("gpu[01:100]", "as many digits"),
        ("gpu[1:9:0]", "step"),
        ("gpu[1:9:x]", "step"),
        ("gpu[a:3]", "two numbers or two letters"),
        ("gpu[ab:cd]", "two numbers or two letters"),
        ("gpu[1:2", "no partner"),
        ("gpu1:2]", "no partner"),
        ("gpu[1:99999999999]", "at most"),
        ("gpu[1-99999999999,3]", "at most"),
        ("gpu[1-99999,1-99999]", "at most"),
        ("gpu[01-100]", "as many digits"),
        ("gpu[3-1,7]", "no members"),
        ("gpu[1,]", r"expected \[begin:end\]"),
        ("r[1:9999]n[1:9999]", "at most"),
        ("../etc", "host name"),
        ("a b", "host name"),
        ("-oProxyCommand=x", "host name"),
        ("", "host name"),
    ],
)
def test_a_pattern_that_names_nothing_usable_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        expand(pattern)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 200), st.integers(1, 9), st.integers(1, 6))
def test_a_numeric_range_has_every_step_at_its_width(begin: int, length: int, step: int, width: int) -> None:
    end = begin + length
    low, high = str(begin).zfill(width), str(end).zfill(width)
    if len(low) != len(high):
        low, high = str(begin), str(end)
    names = expand(f"h[{low}:{high}:{step}]x")
    assert [int(name[1:-1]) for name in names] == list(range(begin, end + 1, step))
    if low.startswith("0") and len(low) > 1:
        assert {len(name) for name in names} == {len(low) + 2}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=4))
def test_several_ranges_multiply_and_never_repeat_a_name(bounds: list[tuple[int, int]]) -> None:
    names = expand("x" + "-".join(f"[{begin}:{begin + length}]" for begin, length in bounds))
    expected = 1
    for _, length in bounds:
        expected *= length + 1
    assert len(names) == len(set(names)) == expected
    assert names == sorted(names, key=lambda name: [int(part) for part in name[1:].split("-")])


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("gpu01", ("gpu01", None)),
        ("gpu01:22", ("gpu01", 22)),
        ("gpu[01:16]:2222", ("gpu[01:16]", 2222)),
        ("gpu[01:16]", ("gpu[01:16]", None)),
        ("[fe80::1]:22", ("fe80::1", 22)),
        ("2001:db8::22", ("2001:db8::22", None)),
        ("::1", ("::1", None)),
    ],
)
def test_a_port_is_told_from_ranges_and_addresses(pattern: str, parts: tuple[str, int | None]) -> None:
    assert split_port(pattern) == parts


def test_a_login_has_user_host_and_port() -> None:
    assert split_login("ubuntu@gpu[1:2]:2222") == ("ubuntu", "gpu[1:2]", 2222)
    assert split_login("gpu1") == (None, "gpu1", None)
