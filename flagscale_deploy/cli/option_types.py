"""Numbers, sizes and times on the command line, each within bounds: `20M`, `2h`, `2026-11-24T10:00`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from flagscale_deploy.support.units import parse_duration, parse_size

MOST_FORKS = 10_000
MOST_TOKENS = 10_000_000
MOST_GROUPS = 10_000
LONGEST_WAIT = 30 * 86_400.0
LONGEST = 100 * 366 * 86_400.0
"""Seconds before now."""


class Whole(click.IntRange):
    """A whole number from `low` to `high`."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high)


class Number(click.FloatRange):
    """A number from `low` to `high`; `nan` is none."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return a number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class Text(click.ParamType[str]):
    """Text for an engine: of whole characters."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a text."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("the text is not in UTF-8", param, ctx)
        return text


@dataclass(frozen=True)
class When:
    """A time: absolute (Unix seconds), or so many seconds before now."""

    since: float | None = None
    within: float | None = None


class Size(click.ParamType[int]):
    """Bytes: a number with K, M, G or T, which are powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return a size as a number of bytes."""
        if isinstance(value, int):
            return value
        size = parse_size(str(value)) or 0
        if not 0 < size < 1 << 62:
            self.fail(f"{value} is not a size: give a number of bytes, or one with K, M, G or T (20M)", param, ctx)
        return size


class Time(click.ParamType[When]):
    """A duration before now (30m, 2h, 1d), or a time in ISO 8601, which without a zone is the operator's own."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> When:
        """Return a time."""
        if isinstance(value, When):
            return value
        text = str(value).strip()
        if (seconds := parse_duration(text)) is not None and seconds <= LONGEST:
            return When(within=seconds)
        try:
            iso = f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text  # Python 3.10 does not know Z
            return When(since=datetime.fromisoformat(iso).timestamp())
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value} is not a time: give a duration (30m, 2h, 1d) or 2026-11-24T10:00", param, ctx)


class Duration(click.ParamType[float]):
    """A duration in seconds: `90s`, `30m`, `1h30m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return a duration in seconds."""
        seconds = value if isinstance(value, float) else parse_duration(str(value))
        if seconds is None or not 0 <= seconds <= LONGEST_WAIT:
            self.fail(f"{value} is not a duration up to 30d: give it with a unit (90s, 30m, 2h)", param, ctx)
        return seconds


SIZE, TIME, TEXT, DURATION = Size(), Time(), Text(), Duration()
