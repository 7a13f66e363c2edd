"""`check` on lab hosts, beside one bare command on each; with a configuration, too, where real vLLM reads the flags.

python -m benchmarks.check [--hosts 8] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pairs import Timing, time_side_by_side
from tests.environments import build
from tests.lab import Lab

FORGET = 'rm -rf "$HOME/.cache/flagscale-deploy/parsed"; '
"""What was remembered of flags that were read."""
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


def _configuration(model: Path) -> dict[str, Any]:
    """An instance on one host, and Ray, whose connections are tried, on all of them."""
    return {
        "experiment": {"exp_name": "checked"},
        "model_args": {"tiny": {"model-tag": str(model), "tensor-parallel-size": 4, "max-model-len": 512}},
    }


def measure(hosts: int, rounds: int) -> dict[str, Timing]:
    """The commands on as many fresh lab hosts."""
    environment, model = build.node_environment(), build.tiny_model()
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(hosts=hosts, gpus=8, mounts=[*build.mounts(environment), model]) as lab,
    ):
        inventory = lab.inventory(Path(folder) / "hosts.yaml", venv=str(environment))
        config = Path(folder) / "tiny.yaml"
        config.write_text(yaml.safe_dump(_configuration(model)), encoding="utf-8")
        product = [sys.executable, "-m", "flagscale_deploy"]
        given = ["-q", "-i", str(inventory)]
        configured = [*product, "check", *given, "-c", str(config)]
        return time_side_by_side(
            {
                "Paramiko threads: true": [sys.executable, "-m", "benchmarks.bare_command", str(inventory)],
                "exec -- true": [*product, "exec", *given, "--", "true"],
                "check": [*product, "check", *given],
                "check -c": configured,
                "check -c, cold": ["sh", "-c", FORGET + 'exec "$@"', "sh", *configured],
            },
            rounds,
            cwd=Path(__file__).parent.parent,
            env={**{key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}, "HOME": folder},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
