"""Sizes and times as one types them."""

from __future__ import annotations

from datetime import datetime

import click
import pytest

from flagscale_deploy.cli.option_types import SIZE, TIME, When


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512", 512), ("20M", 20 << 20), ("1.5k", 1536), ("2GiB", 2 << 30), ("3 TB", 3 << 40), ("8m", 8 << 20)],
)
def test_a_size(text: str, size: int) -> None:
    assert SIZE.convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "1X", "1e9", "9999999T", "1 000", "\n", "１M"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        SIZE.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), ("10s", 10), ("2h30m", 9000), ("1D 2H", 93600)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert TIME.convert(text, None, None) == When(within=seconds)


def test_a_time_is_the_operators_own_where_it_has_no_zone() -> None:
    assert TIME.convert("2026-11-24T10:00Z", None, None) == When(since=1795514400.0)
    assert TIME.convert("2026-11-24T11:00+01:00", None, None) == When(since=1795514400.0)
    assert TIME.convert("2026-11-24 10:00", None, None) == When(since=datetime(2026, 11, 24, 10).timestamp())
    assert TIME.convert("2026-11-24", None, None) == When(since=datetime(2026, 11, 24).timestamp())


@pytest.mark.parametrize("text", ["", "yesterday", "2h30", "-1h", "2026-13-01", "m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        TIME.convert(text, None, None)
