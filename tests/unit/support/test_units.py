"""How sizes, durations and counts are read and printed."""

from __future__ import annotations

import math

import pytest

from flagscale_deploy.support.units import (
    counted,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), (" 1.5H ", 5400), ("2 d", 172800), ("1d12h", 129600)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "1m1h", "-1h", "1e3s", "1 week"])
def test_what_is_no_duration_with_units(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("512", 512), ("20M", 20 << 20), ("2GiB", 2 << 30)])
def test_a_size_is_read_in_powers_of_1024(text: str, number: int) -> None:
    assert parse_size(text) == number


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 000"])
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (24 << 20, "24.0 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_a_size_is_printed(number: int, text: str) -> None:
    assert format_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0s"), (59, "59s"), (307, "5m07s"), (3660, "1h01m"), (90000, "1d01h"), (math.inf, "?"), (-1e300, "?")],
)
def test_a_duration_is_printed(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_have_the_plural_that_belongs_to_them() -> None:
    assert [counted(number, "host") for number in (0, 1, 2)] == ["0 hosts", "1 host", "2 hosts"]
    assert [counted(number, "process") for number in (1, 3)] == ["1 process", "3 processes"]
