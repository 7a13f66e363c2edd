"""Sizes and times on the command line: `20M`, `2h`, `2026-11-24T10:00`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import click

from flagscale_deploy.support.units import parse_duration, parse_size


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
        if (seconds := parse_duration(text)) is not None:
            return When(within=seconds)
        try:
            iso = f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text  # Python 3.10 does not know Z
            return When(since=datetime.fromisoformat(iso).timestamp())
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value} is not a time: give a duration (30m, 2h, 1d) or 2026-11-24T10:00", param, ctx)


SIZE, TIME = Size(), Time()
