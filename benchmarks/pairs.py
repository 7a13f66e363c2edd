"""Times commands side by side: one round runs each of them once, so that what else the machine does hits all alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of wall time that a command took, a figure for each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def time_side_by_side(
    commands: Mapping[str, Sequence[str]], rounds: int, *, cwd: Path, env: Mapping[str, str]
) -> dict[str, Timing]:
    """Run every command once unmeasured, then `rounds` times in turn. Raises CalledProcessError when one fails."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            began = time.monotonic()
            subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
            if number:
                taken[name].append(time.monotonic() - began)
    return {name: Timing(name, tuple(seconds)) for name, seconds in taken.items()}
