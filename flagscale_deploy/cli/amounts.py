"""Sizes and times as one types them: `20M`, `2h`, `2026-11-24T10:00`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class When:
    """A time: absolute (Unix seconds), or so many seconds before now."""

    since: float | None = None
    within: float | None = None


class Size(click.ParamType[int]):
    """Bytes: a number with K, M, G or T, which are powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        size = int(float(found[1]) * _FACTORS[found[2].upper()]) if found else 0
        if not 0 < size < 1 << 62:
            self.fail(f"{value} is no size: give a number of bytes, or one with K, M, G or T (20M)", param, ctx)
        return size


class Time(click.ParamType[When]):
    """A duration before now (30m, 2h, 1d), or a time in ISO 8601, which without a zone is the operator's own."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> When:
        if isinstance(value, When):
            return value
        text = str(value).strip()
        if found := _DURATION.fullmatch(text):
            return When(within=float(found[1]) * _SECONDS[found[2].lower()])
        try:
            iso = f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text  # Python 3.10 does not know Z
            return When(since=datetime.fromisoformat(iso).timestamp())
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value} is no time: give a duration (30m, 2h, 1d) or 2026-11-24T10:00", param, ctx)


SIZE, TIME = Size(), Time()
