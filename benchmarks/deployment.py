"""Deployments on lab hosts for benchmarks: with a stand-in for vLLM or the real one, with real Ray or without."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.running import PRODUCT, ROOT
from tests.lab import Lab


@dataclass(frozen=True)
class Operator:
    """An operator with an inventory, a configuration, and a home directory of their own."""

    place: Path
    inventory: Path
    config: Path

    def __call__(self, command: str, *words: str | Path) -> float:
        """Run a command of the product; return its seconds. Raises RuntimeError with its output where it fails."""
        argv: list[str | Path] = [*PRODUCT, command, "-i", self.inventory, "-c", self.config, *words]
        began = time.monotonic()
        done = subprocess.run(argv, cwd=self.place, env=self.environment, capture_output=True, text=True, check=False)
        took = time.monotonic() - began
        if done.returncode:
            raise RuntimeError(f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return took

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the operator's commands."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.place), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}


def stood_in(
    place: Path, lab: Lab, venv: Path, models: int, ray: str = "off", words: str = "", **host: Any
) -> Operator:
    """Return an operator with a configuration for the stand-in: a model for each host, or one over all through Ray."""
    flags: dict[str, Any] = {"model-tag": "lab/tiny", "served-model-name": "tiny"}
    if ray == "on":
        flags |= {"tensor-parallel-size": len(lab.hosts)}
    content = {
        "experiment": {"exp_name": "bench", "envs": {"STAND_IN": words}},
        "model_args": {f"model{at}": {**flags, "port": 7000 + at} for at in range(models)},
        "deploy": {"ray": ray, "timeouts": {"ready": 120, "stop": 5, "ray": 120}},
    }
    config = place / "bench.yaml"
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return Operator(place, lab.inventory(place / "hosts.yaml", venv=str(venv), **host), config)


def everywhere(lab: Lab, script: str) -> float:
    """Run a script on every host over ssh, all at the same time; return the seconds."""
    began = time.monotonic()
    shell = "bash -s >/dev/null 2>&1"
    processes = [subprocess.Popen([*host.ssh_argv(), shell], stdin=subprocess.PIPE, text=True) for host in lab.hosts]
    for process in processes:
        process.communicate(script)
    return time.monotonic() - began


def require_gone(left: Sequence[Any]) -> None:
    """Raise RuntimeError where something of the deployment still runs."""
    if left:
        raise RuntimeError(f"left on the hosts: {left}")
