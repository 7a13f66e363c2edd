"""The clocks of hosts, as they were when logs were read: log lines bear local time, and clocks go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

FILE = "clocks.json"
UNKNOWN = "hosts' clocks are taken as they are: of {hosts} neither time zone nor skew is known (" + FILE + ")"
NAMED = 8
NOISE_SECONDS = 1.0
"""Measuring is no better than this: clocks that differ by less are taken for equal, and whole seconds stay equal."""
LARGEST_SECONDS = 1e10


@dataclass(frozen=True)
class Clock:
    """A host's clock: seconds that its local time is ahead of UTC, and that it is ahead of the operator's clock."""

    utc_offset: float = 0.0
    skew: float = 0.0

    @property
    def ahead(self) -> float:
        """Seconds that local times in its logs are ahead of UTC by the operator's clock."""
        return self.utc_offset + self.skew


def heard(said: Mapping[str, Any]) -> Clock | None:
    """Return the clock that a host (`remote/system/clock.py`) has sent; None without one that makes sense."""
    return _clock(said.get("utc_offset"), said.get("clock"), time.time())


def write(folder: Path, clocks: Mapping[str, Clock]) -> None:
    """Note clocks beside the folders of hosts' logs, by the folders' names; others that are noted stay.

    Raises OSError.
    """
    if clocks:
        noted = {name: asdict(clock) for name, clock in sorted({**read(folder), **clocks}.items())}
        path = folder / FILE
        path.touch(mode=0o600)
        path.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Clock]:
    """The clocks that lie beside the folders of hosts' logs, by the folders' names; none where there are none."""
    try:
        noted = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = noted.items() if isinstance(noted, dict) else ()
    clocks = {name: _clock(each.get("utc_offset"), each.get("skew"), 0.0) for name, each in entries
              if isinstance(each, dict)}  # fmt: skip
    return {name: clock for name, clock in clocks.items() if clock is not None}


def compared(clocks: Mapping[str, Clock | None]) -> dict[str, Clock]:
    """Clocks to put the times of logs right by: what is noise is left out, and a clock that is not known is taken for
    the first of those that are."""
    known = [clock for clock in clocks.values() if clock is not None]
    if not known:
        return {}
    usual = median(clock.skew for clock in known)
    chosen = {name: known[0] if clock is None else clock for name, clock in clocks.items()}
    return {name: Clock(each.utc_offset, usual if abs(each.skew - usual) < NOISE_SECONDS else each.skew)
            for name, each in chosen.items()}  # fmt: skip


def doubt(clocks: Mapping[str, Clock | None]) -> str:
    """What to say where times of several hosts are compared, and not all clocks are known; "" elsewhere."""
    unknown = sorted(name for name, clock in clocks.items() if clock is None)
    if len(clocks) < 2 or not unknown:
        return ""
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    return UNKNOWN.format(hosts=", ".join(unknown[:NAMED]) + more)


def _clock(utc_offset: object, clock: object, reference: float) -> Clock | None:
    if not isinstance(utc_offset, int | float) or not isinstance(clock, int | float):
        return None
    sane = abs(utc_offset) < LARGEST_SECONDS and abs(clock) < LARGEST_SECONDS  # not so NaN
    return Clock(float(utc_offset), float(clock) - reference) if sane else None
