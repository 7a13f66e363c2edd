"""Numbers with units: how sizes, durations and counts are read and printed."""

from __future__ import annotations

import re
import time

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
LONGEST_DURATION = 1e11
"""Seconds: 3,000 years."""
_PARTS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(
    "".join(rf"(?:\s*(?P<{unit}>\d{{1,12}}(?:\.\d{{1,12}})?)\s*{unit})?" for unit in _PARTS), re.IGNORECASE | re.ASCII
)


def parse_size(text: str) -> int | None:
    """Return the bytes that `512`, `20M` or `2GiB` means, K to T being powers of 1024; None if it is not a size."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _FACTORS[match[2].upper()]) if match else None


def parse_duration(text: str) -> float | None:
    """Return the seconds that `90s`, `30m`, `1h30m` or `2d` means; None if it is not a duration with units."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    return sum(float(match[unit] or 0) * seconds for unit, seconds in _PARTS.items())


def format_size(number: float) -> str:
    """Return bytes as `512 bytes`, `1.5 GiB`."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return counted(int(number), "byte")


def format_duration(seconds: float) -> str:
    """Return seconds as `7s`, `5m07s`, `2h05m` or `3d04h`; "?" where a host's clocks were too far apart."""
    if not abs(seconds) < LONGEST_DURATION:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def format_time(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a point in time of a host's clock in local time, "?" for one that no calendar has."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "?"


def counted(number: int, noun: str) -> str:
    """Return `1 host`, `2 hosts`, `3 processes`."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"
