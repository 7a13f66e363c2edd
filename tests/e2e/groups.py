"""Two hosts with a GPU each, and an operator who deploys groups of ranks over both, without Ray."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import tiny
from tests.lab import Host, Lab
from tests.lab.leftovers import Process
from tests.lab.product.operator import Operator, Result, Running, eventually

PORT = 4567
READY_SECONDS = 600.0
WORKERS = Path(__file__).with_name("cpu_worker")
"""The folder of the worker for pipeline and expert parallelism on CPU; a lab has to mount it."""
WORKER = "parallel_cpu_worker.Worker"


@dataclass
class Groups:
    """The lab, the operator and the model; `served` are the processes that were seen of each deployment.

    `forks` is for `tiny.write`.
    """

    lab: Lab
    operator: Operator
    model: Path
    served: dict[str, list[Process]] = field(default_factory=dict)
    forks: bool = False

    @property
    def head(self) -> Host:
        """Return the driver's host."""
        return self.lab.hosts[0]

    @property
    def other(self) -> Host:
        """Return the follower's host."""
        return self.lab.hosts[1]

    def write(self, name: str, flags: dict[str, Any], model: Path | None = None) -> list[str | Path]:
        """Write the configuration of a group over both hosts; return the words that choose it."""
        path = self.operator.directory / f"{name}.yaml"
        tiny.write(path, model or self.model, port=PORT, gpus=2, flags=flags, forks=self.forks)
        search = f"{self.model}/.start:{WORKERS}"
        environment = ("TORCH_COMPILE_DISABLE=1", f"PYTHONPATH={search}")
        return ["-c", path, "deploy.executor=mp", *(f"experiment.envs.{variable}" for variable in environment)]

    def start(self, name: str, flags: dict[str, Any], model: Path | None = None, words: Sequence[str] = ()) -> Running:
        """Start `run` of a group."""
        return self.operator.start("run", *self.write(name, flags, model), *words)

    def run(self, name: str, flags: dict[str, Any], model: Path | None = None, words: Sequence[str] = ()) -> Result:
        """Run a group until it is ready, and note its processes."""
        ran = self.start(name, flags, model, words).end(0, within=READY_SECONDS)
        self.served[name] = self.lab.processes(name)
        return ran

    def status(self, name: str, exits: int | None) -> tuple[Any, dict[str, Any]]:
        """Return `status --json`, and its only instance."""
        status = self.operator("status", "--name", name, "--json", exits=exits).json
        (instance,) = status["instances"]
        return status, instance

    def kill(self, host: Host, name: str, title: str = "") -> None:
        """Kill the processes of a deployment on a host whose command lines have a text, all if it is ""."""
        mine = [process for process in self.lab.processes(name) if process.host == host.name]
        chosen = [process for process in mine if title in process.command]
        assert chosen, [process.command for process in mine]
        host.run(["kill", "-9", *(str(process.pid) for process in chosen)])
        assert eventually(lambda: not {process.pid for process in chosen} & self.pids(host, name))

    def pids(self, host: Host, name: str) -> set[int]:
        """Return the processes of a deployment on a host."""
        return {process.pid for process in self.lab.processes(name) if process.host == host.name}

    def stop(self, name: str, *words: str) -> list[Any]:
        """Stop a deployment; return what is left of it on both hosts but its directory."""
        self.operator.start("stop", "--name", name, *words).end(0, within=180)
        left = self.lab.leftovers(name, self.served.get(name, ()))
        return [leftover for leftover in left if leftover.kind != "directory"]

    def ask_often(self, requests: int) -> list[int]:
        """Return how many tokens each of so many requests brought, sent all at once."""
        with ThreadPoolExecutor(requests) as pool:
            return list(pool.map(lambda number: self._ask(f"Request {number}"), range(requests)))

    def _ask(self, prompt: str) -> int:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "ignore_eos": True}
        reply = json.loads(self._get("/v1/completions", json.dumps(body).encode()))
        return int(reply["usage"]["completion_tokens"])

    def served_by(self) -> dict[str, float]:
        """Return how many requests each data-parallel rank has completed, by the server's own metrics."""
        lines = [line for line in self._get("/metrics").splitlines() if line.startswith("vllm:request_success_total")]
        counts: dict[str, float] = {}
        for line in lines:
            engine = line.partition('engine="')[2].partition('"')[0]
            counts[engine] = counts.get(engine, 0.0) + float(line.rpartition(" ")[2])
        return counts

    def _get(self, path: str, body: bytes | None = None) -> str:
        request = urllib.request.Request(
            f"http://{self.head.address}:{PORT}{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return str(reply.read().decode())


def ranks(instance: dict[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Return role, host and state of each rank."""
    return [(rank["role"], rank["host"], rank["state"]) for rank in instance["ranks"]]
