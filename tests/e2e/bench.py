"""Two hosts on which deployments fail: real Ray and real vLLM over both, by the product's command line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flagscale_deploy.diagnosis.table import Signature, signatures
from tests.e2e import tiny
from tests.lab import Host, Lab
from tests.lab.leftovers import Process, inspect
from tests.lab.product.operator import Operator, Running, eventually

PORT = 4600
GIVES_UP_SECONDS = 290.0
UNASKED = ("--skip-check", "engine-arguments")
"""vLLM's parser, which takes six core-seconds, is asked in other modules."""
TIMEOUTS = {"ray": 150, "ready": 180, "stop": 2}


@dataclass(frozen=True)
class Failed:
    """A run that failed: `run --json`'s answer, and what was said meanwhile."""

    answer: Mapping[str, Any]
    said: str

    def blames(self, host: str, name: str) -> str:
        """Return the quoted line, which has to be of this host, with cause and remedy of this entry of the table."""
        cause = self.answer["cause"]
        entry = signature(name)
        assert cause is not None, self.said
        assert (cause["host"], cause["signature"]) == (host, name), cause
        assert (cause["cause"], cause["remedy"]) == (entry.cause, entry.remedy)
        line = str(cause["line"])
        assert entry.regex.search(line), line
        return line


def signature(name: str) -> Signature:
    """Return an entry of the table of error texts."""
    return next(signature for signature in signatures() if signature.name == name)


@dataclass
class Bench:
    """Two hosts with a GPU each, and somebody who deploys a model with tensor parallel size 2 over both."""

    lab: Lab
    desk: Path
    node_env: Path
    model: Path
    operators: list[Operator] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> tuple[Host, Host]:
        first, second = self.lab.hosts
        return first, second

    def start(
        self,
        name: str,
        *words: str | Path,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        flags: Mapping[str, Any] | None = None,
        gpus: int = 2,
        timeouts: Mapping[str, float] | None = None,
    ) -> Running:
        """Type `run`. `hosts` are variables of single hosts, `flags` vLLM's beside the usual; one GPU needs no Ray."""
        given = {"tensor-parallel-size": gpus, **(flags or {})}
        config = tiny.write(self.desk / f"{name}.yaml", self.model, port=PORT, gpus=gpus, flags=given, forks=True)
        operator = Operator(self.desk, self._inventory(self.desk / f"{name}-hosts.yaml", hosts or {}))
        self.operators.append(operator)
        self._names.append(name)
        overrides = [f"deploy.timeouts.{key}={value}" for key, value in (TIMEOUTS | dict(timeouts or {})).items()]
        overrides += ["deploy.ray.mode=auto", tiny.WITHOUT_DASHBOARD]
        return operator.start("run", "-c", config, "--json", "-v", *UNASKED, *words, *overrides)

    def fails(self, name: str, *words: str | Path, exits: int, **wishes: Any) -> Failed:
        """Run it until it fails with this exit status, and see that everything has been taken down."""
        return self.ended(name, self.start(name, *words, **wishes), exits)

    def ended(self, name: str, running: Running, exits: int) -> Failed:
        """Expect the same of a run that goes on already."""
        result = running.end(exits, within=GIVES_UP_SECONDS)
        assert self.left(name) == []
        failed = Failed(result.json, result.said)
        assert failed.answer["exit_code"] == exits
        assert set(failed.answer["stopped"].values()) <= {"stopped", "nothing"}, failed.answer["stopped"]
        return failed

    def status(self, name: str) -> tuple[Any, float]:
        """`status --json` of something that is not well, and the seconds it took."""
        begun = time.monotonic()
        result = self.operators[-1].start("status", "--name", name, "--json").end(1)
        return result.json, time.monotonic() - begun

    def left(self, name: str, served: Sequence[Process] = ()) -> list[str]:
        """Return processes and ports of a deployment on any host."""
        return [
            f"{leftover.host}: {leftover.what}"
            for leftover in self.lab.leftovers(name, served)
            if leftover.kind != "directory"
        ]

    @property
    def nobody(self) -> str:
        """An address of the hosts' network that no host has."""
        return f"{self.hosts[0].address.rpartition('.')[0]}.99"

    def forget(self) -> None:
        """Kill what is left of any deployment."""
        for host in self.hosts:
            for name in self._names:
                for process in inspect(host, name).processes:
                    host.run(["kill", "-9", str(process.pid)], check=False)
        self._names.clear()

    def _inventory(self, path: Path, hosts: Mapping[str, Mapping[str, Any]]) -> Path:
        content = yaml.safe_load(self.lab.inventory(path, venv=str(self.node_env)).read_text())
        for host, variables in hosts.items():
            content["all"]["hosts"][host].update(variables)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path


@contextmanager
def covered(host: Host, path: Path, *how: str) -> Iterator[None]:
    """Something else is mounted over a path while it lasts, on that host only."""
    host.run(["mount", *how, str(path)])
    try:
        yield
    finally:
        host.run(["umount", "-l", str(path)])


def processes(host: Host, name: str) -> list[int]:
    """Return processes that have this in their command lines, by their pids on the host."""
    pattern = f"[{name[0]}]{name[1:]}"  # which doesn't match the command line of the search itself
    return [int(pid) for pid in host.run(["pgrep", "-f", pattern], check=False).stdout.split()]


def kill_when_there(host: Host, name: str, within: float = 60.0) -> None:
    """Kill the first process that has this in its command line, as soon as it is there."""
    assert eventually(lambda: processes(host, name), within, every=0.2), f"no {name} on {host.name}"
    host.run(["kill", "-9", str(processes(host, name)[0])])
