"""`check` on lab hosts, beside one bare command on each of them.

python -m benchmarks.check [--hosts 8] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import Timing, time_side_by_side
from tests.lab import Lab

TARGET = 1.5
"""`check` takes no more than this many times the bare command (issue: check)."""


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="benchmarks.check", description=__doc__)
    options.add_argument("--hosts", type=int, default=8)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--json", type=Path)
    asked = options.parse_args(argv)
    timings = measure(asked.hosts, asked.rounds)
    bare = timings["exec -- true"].median
    for timing in timings.values():
        spread = f"{min(timing.seconds):.2f} to {max(timing.seconds):.2f}"
        sys.stdout.write(f"{timing.name:24} {timing.median:6.2f} s  ({spread})  {timing.median / bare:5.2f} ×\n")
    if asked.json:
        asked.json.write_text(json.dumps({name: each.seconds for name, each in timings.items()}, indent=2) + "\n")
    return 0 if timings["check"].median <= TARGET * bare else 1


def measure(hosts: int, rounds: int) -> dict[str, Timing]:
    """The commands on as many fresh lab hosts."""
    with tempfile.TemporaryDirectory() as folder, Lab(hosts=hosts, gpus=8) as lab:
        inventory = lab.inventory(Path(folder) / "hosts.yaml")
        product = [sys.executable, "-m", "flagscale_deploy"]
        given = ["-q", "-i", str(inventory)]
        return time_side_by_side(
            {
                "Paramiko threads: true": [sys.executable, "-m", "benchmarks.bare_command", str(inventory)],
                "exec -- true": [*product, "exec", *given, "--", "true"],
                "check": [*product, "check", *given],
            },
            rounds,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "HOME": folder},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
