"""The clocks of hosts at the time when logs were read: log lines bear local time, and clocks can be wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.system.files import write_atomically
from flagscale_deploy.support.input_files import read_text

FILE = "clocks.json"
UNKNOWN = "times may be compared wrongly: time zone and clock skew of {hosts} are unknown (no entry in " + FILE + ")"
NAMED = 8
NOISE_SECONDS = 1.0
"""Precision of the measurement: clocks that differ by less count as equal, so that whole seconds stay equal."""
LARGEST_SECONDS = 1e10


@dataclass(frozen=True)
class Clock:
    """A host's clock: seconds that its local time is ahead of UTC, and that it is ahead of the operator's clock."""

    utc_offset: float = 0.0
    skew: float = 0.0

    @property
    def ahead(self) -> float:
        """Return the seconds that local times in the host's logs are ahead of UTC by the operator's clock."""
        return self.utc_offset + self.skew


def parse_clock(message: Mapping[str, object]) -> Clock | None:
    """Return the clock in a host's message (`remote/system/clock.py`); None without one that makes sense."""
    return _clock(message.get("utc_offset"), message.get("clock"), time.time())


def write(folder: Path, clocks: Mapping[str, Clock]) -> None:
    """Write clocks beside the folders of hosts' logs, by the folders' names; other entries are kept. Raises OSError."""
    if clocks:
        entries = {name: asdict(clock) for name, clock in sorted({**read(folder), **clocks}.items())}
        path = folder / FILE
        write_atomically(path, json.dumps(entries, indent=1) + "\n")


def read(folder: Path) -> dict[str, Clock]:
    """Return the clocks that lie beside the folders of hosts' logs, by the folders' names; {} where there are none."""
    if (folder / FILE).is_symlink():
        return {}
    try:
        content = json.loads(read_text(folder / FILE))
    except (InputError, RecursionError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    clocks = {name: _clock(entry.get("utc_offset"), entry.get("skew"), 0.0) for name, entry in entries
              if isinstance(entry, dict)}  # fmt: skip
    return {name: clock for name, clock in clocks.items() if clock is not None}


def comparable(clocks: Mapping[str, Clock | None]) -> dict[str, Clock]:
    """Return clocks to convert log times by, without noise; an unknown clock counts as equal to the first known."""
    measured = [clock for clock in clocks.values() if clock is not None]
    if not measured:
        return {}
    usual = median(clock.skew for clock in measured)
    chosen = {name: measured[0] if clock is None else clock for name, clock in clocks.items()}
    return {name: Clock(clock.utc_offset, usual if abs(clock.skew - usual) < NOISE_SECONDS else clock.skew)
            for name, clock in chosen.items()}  # fmt: skip


def unknown_clocks_note(clocks: Mapping[str, Clock | None]) -> str:
    """Return a note naming hosts whose clocks are unknown; "" where there are none, or only one host."""
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
