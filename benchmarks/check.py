"""Time `check` on lab hosts beside one bare command on each; with a configuration, real vLLM parses the flags.

python -m benchmarks.check [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure
from benchmarks.pairs import Timing, time_side_by_side
from benchmarks.running import PRODUCT, PYTHON, ROOT, bench
from tests.environments import build
from tests.lab import Lab

FORGET = 'rm -rf "$HOME/.cache/flagscale-deploy/parsed"; '
"""Delete the cache of parsed flags."""
HOSTS = 8
BARE, EXEC, CHECK = "Paramiko threads: true", "exec -- true", "check"
ENTERED, CONFIGURED, COLD = "check, hosts with a venv", "check -c", "check -c, cold"
TARGETS = {CHECK: 1.5}


def measure(quick: bool) -> list[Figure]:
    """Take all figures; the quick run has no configuration and needs no vLLM."""
    timings = _without_configuration() if quick else _all(5)
    bare = timings[EXEC].median
    return [
        Figure("check", f"{name} / {EXEC}, {HOSTS} hosts", timing.median / bare, "×", TARGETS.get(name),
               f"{timing.median:.2f} s, {min(timing.seconds):.2f} to {max(timing.seconds):.2f}")
        for name, timing in timings.items() if name != EXEC
    ]  # fmt: skip


def _configuration(model: Path) -> dict[str, Any]:
    """Return a configuration with an instance on one host, and Ray, whose connections are tested, on all hosts."""
    return {
        "experiment": {"exp_name": "checked"},
        "model_args": {"tiny": {"model-tag": str(model), "tensor-parallel-size": 4, "max-model-len": 512}},
    }


def _without_configuration() -> dict[str, Timing]:
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder, Lab(hosts=HOSTS, gpus=8) as lab:
        return _time(_commands(lab.inventory(Path(folder) / "hosts.yaml")), 3, folder)


def _all(rounds: int) -> dict[str, Timing]:
    """Time the commands on fresh lab hosts with eight stand-in GPUs each."""
    environment, model = build.node_environment(), build.tiny_model()
    with (
        tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder,
        Lab(hosts=HOSTS, gpus=8, mounts=[*build.mounts(environment), model]) as lab,
    ):
        plain = lab.inventory(Path(folder) / "plain.yaml")
        inventory = lab.inventory(Path(folder) / "hosts.yaml", venv=str(environment))
        config = Path(folder) / "tiny.yaml"
        config.write_text(yaml.safe_dump(_configuration(model)), encoding="utf-8")
        configured = [*PRODUCT, "check", "-q", "-i", str(inventory), "-c", str(config)]
        cold = ["sh", "-c", FORGET + 'exec "$@"', "sh", *configured]
        entered = _commands(inventory)[CHECK]
        return _time(_commands(plain) | {ENTERED: entered, CONFIGURED: configured, COLD: cold}, rounds, folder)


def _commands(inventory: Path) -> dict[str, list[str]]:
    options = ["-q", "-i", str(inventory)]
    return {
        BARE: [PYTHON, "-m", "benchmarks.bare_command", str(inventory)],
        EXEC: [*PRODUCT, "exec", *options, "--", "true"],
        CHECK: [*PRODUCT, "check", *options],
    }


def _time(commands: dict[str, list[str]], rounds: int, home: str) -> dict[str, Timing]:
    env = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    return time_side_by_side(commands, rounds, cwd=ROOT, env={**env, "HOME": home})


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
