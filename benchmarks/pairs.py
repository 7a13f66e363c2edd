"""Time commands side by side: a round runs each of them once, so that other load on the machine affects all alike."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """The cost of a command in each round: seconds of wall time, seconds of CPU time, and peak memory in bytes.

    CPU time and memory include what the command started and waited for.
    """

    name: str
    seconds: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    memory: tuple[int, ...] = ()

    @property
    def median(self) -> float:
        """Return the median of the wall times in seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        spread = f"{min(self.seconds):.2f} to {max(self.seconds):.2f}"
        used = f"  CPU {statistics.median(self.cpu):.2f} s, {max(self.memory) >> 20} MiB" if self.cpu else ""
        return f"{self.name:42} {self.median:7.2f} s  ({spread}){used}"


def time_side_by_side(
    commands: Mapping[str, Sequence[str | Path]], rounds: int, *, cwd: Path, env: Mapping[str, str], warm: bool = True
) -> dict[str, Timing]:
    """Run every command `rounds` times in turn, after one unmeasured round if `warm`.

    Raises RuntimeError when one fails.
    """
    costs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for number in range(rounds + warm):
        for name, argv in commands.items():
            cost = run_timed(argv, cwd=cwd, env=env)
            if number or not warm:
                costs[name].append(cost)
    return {name: Timing(name, *map(tuple, zip(*measured, strict=True))) for name, measured in costs.items()}


def run_timed(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, CPU seconds and peak memory in bytes. Raises RuntimeError with its output."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        with subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            took = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(
                f"exit status {process.returncode}: {shlex.join(map(str, argv))}\n{output.read()[-4000:]}"
            )
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
