"""Times commands side by side: one round runs each of them once, so that what else the machine does hits all alike."""

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
    """What a command took, a figure for each round: seconds of wall time, seconds of CPU time, and the most memory in
    bytes. CPU and memory are those of the command and what it started and waited for."""

    name: str
    seconds: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    memory: tuple[int, ...] = ()

    @property
    def median(self) -> float:
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
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for number in range(rounds + warm):
        for name, argv in commands.items():
            found = run_timed(argv, cwd=cwd, env=env)
            if number or not warm:
                taken[name].append(found)
    return {name: Timing(name, *map(tuple, zip(*each, strict=True))) for name, each in taken.items()}


def run_timed(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> tuple[float, float, int]:
    """Seconds, seconds of CPU, and the most bytes of memory of one command. Raises RuntimeError with what it said."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.monotonic()
        with subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process:
            _, status, usage = os.wait4(process.pid, 0)
            took = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"exit status {process.returncode}: {shlex.join(map(str, argv))}\n{said.read()[-4000:]}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
