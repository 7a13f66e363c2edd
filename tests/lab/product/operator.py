"""Somebody at a terminal: a home of their own, an inventory, and the product's command line as a process (`forks`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.lab.product.forks import INTERPRETER, Fork

COMMAND = (sys.executable, "-m", "flagscale_deploy")
DEADLINE = 60.0
"""Seconds that the tests wait at most, on a machine that runs others beside them. How fast a thing is, they assert."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        return self.out + self.err


def eventually(true: Callable[[], object], within: float = DEADLINE, every: float = 0.02) -> bool:
    """Whether it becomes true in time.

    It is asked again after `every` seconds, or three times what the asking took, up to half a second more than that.
    """
    deadline = time.monotonic() + within
    asked = time.monotonic()
    while not true():
        if time.monotonic() > deadline:
            return False
        took = time.monotonic() - asked
        time.sleep(max(every, min(3 * took, took + 0.5)))
        asked = time.monotonic()
    return True


class Running:
    """A command that goes on; what it prints is read as it comes, with the time it came at."""

    def __init__(self, process: Fork | subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines: dict[str, list[tuple[float, str]]] = {"out": [], "err": []}
        streams: dict[str, IO[bytes] | None] = {"out": process.stdout, "err": process.stderr}
        self._readers = [threading.Thread(target=self._read, args=stream, daemon=True) for stream in streams.items()]
        for reader in self._readers:
            reader.start()

    @property
    def said(self) -> str:
        """All of its output so far."""
        return self._text("out") + self._text("err")

    def said_at(self, text: str) -> float:
        """When a line with this text came on standard error (Unix time). Raises StopIteration if none did."""
        return next(at for at, line in self._lines["err"] if text in line)

    def wait_for(self, text: str, within: float = DEADLINE) -> None:
        assert eventually(lambda: text in self.said or self._process.poll() is not None, within, 0.05), self.said
        assert text in self.said, self.said

    def until(self, act: Callable[[], None], pattern: str, within: float = DEADLINE) -> None:
        """Do something again and again until the command has said what it should because of it."""

        def said() -> object:
            act()
            return re.search(pattern, self.said)

        assert eventually(said, within), f"nothing like {pattern}:\n{self.said}"

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, exits: int | None, within: float = 2 * DEADLINE) -> Result:
        """Wait for its end, which has to be with this status; None takes any."""
        code = self._process.wait(within)
        for reader in self._readers:
            reader.join(within)
        result = Result(code, self._text("out"), self._text("err"))
        assert exits is None or code == exits, f"exit status {code}, expected {exits}\n{result.said}"
        return result

    def abandon(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()

    def _text(self, stream: str) -> str:
        return "".join(line for _, line in self._lines[stream])

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines[name].append((time.time(), line.decode()))


@dataclass
class Operator:
    """`operator("run", "-c", config)` types that, with the inventory, and asserts the exit status."""

    directory: Path
    inventory: Path
    env: dict[str, str] = field(default_factory=dict)
    umask: int = -1
    started: list[Running] = field(default_factory=list)

    def __call__(self, command: str, *words: str | Path, exits: int | None = 0) -> Result:
        return self.start(command, *words).end(exits)

    def start(self, command: str, *words: str | Path) -> Running:
        """Type a command, and go on while it runs."""
        typed = (command, "-i", str(self.inventory), *map(str, words))
        return self._running(Fork(typed, self.directory, self._environment(), self.umask))

    def start_program(self, *argv: str) -> Running:
        """Start a program of the operator's own."""
        return self._running(
            subprocess.Popen(
                argv,
                cwd=self.directory,
                env=self._environment(),
                umask=self.umask,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )

    def _running(self, process: Fork | subprocess.Popen[bytes]) -> Running:
        self.started.append(Running(process))
        return self.started[-1]

    def run_folder(self) -> Path:
        """Return the folder of the latest run."""
        return max(self.directory.glob("outputs/*/runs/*"), key=lambda path: path.name)

    def _environment(self) -> dict[str, str]:
        """Nothing of the person's who runs the tests: no agent, no known hosts, no proxy, no CI."""
        home = self.directory / "operator-home"
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(home), **INTERPRETER, **self.env}
