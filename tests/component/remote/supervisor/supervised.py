"""A server with its supervisor, in a session of its own, as its launch script starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from flagscale_deploy.remote.deployment import processes, restart_permits
from flagscale_deploy.remote.messages.status import RestartState
from flagscale_deploy.remote.system import proc
from flagscale_deploy.remote.system.proc import MARKER
from flagscale_deploy.transport.bundle import library
from tests.component.remote.living import HOST_PYTHON, Home, wait_until

SCRIPT = "vllm_serve_m_0.sh"
ENGINE = """
import os, signal, sys, time
lives, terms = sys.argv[1:3]
def asked(*_):
    open(terms, "a").write("T")
    time.sleep(float(os.environ.get("SLOW", "0")))
    print("a graceful end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, asked)
open(lives, "a").write("%d\\n" % os.getpid())
print("half a line", end="", flush=True)
if len(open(lives).readlines()) > int(os.environ.get("LIVES", "1000")):
    sys.exit(3)
time.sleep(600)
"""
"""An engine that notes each of its lives by its pid, and each SIGTERM; after LIVES lives it ends while it loads."""


class Supervised:
    """An engine with its supervisor, in a session of its own, recorded as the launcher does it."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.files = restart_permits.Files(home.state, "r1", SCRIPT)
        self.log = home.state / "logs/vllm_serve_m_0.log"
        for name, text in library("supervise", "ray_node", "notify").items():
            path = home.state / "supervisor" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, *options: str, ready: bool = True, engine: str = ENGINE, program: str = "supervise", **env: str
    ) -> Supervised:
        """Start it; `engine` is Python, or bash where `program` is "ray_node"."""
        interpreter = [sys.executable] if program == "supervise" else ["bash"]
        places = [str(self.folder / "lives"), str(self.folder / "terms")]
        numbers = {"max": "5", "first": "0.05", "factor": "1", "ceiling": "0.05", "reset-after": "600"}
        for word in options:
            name, _, value = word.removeprefix("--").partition("=")
            numbers[name] = value
        flags = {"may-end", "notify"} & set(numbers)
        words = [f"--{name}={value}" for name, value in numbers.items() if name not in flags]
        words += [f"--{name}" for name in sorted(flags)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [HOST_PYTHON, str(self.home.state / "supervisor"), program, f"--state={self.home.state}",
                 "--run=r1", f"--script={SCRIPT}", "--name=m/0", *words, "--", *interpreter, "-c", engine, *places],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {MARKER: f"{self.home.deployment}/r1", "HOME": str(self.home.path)} | env,
            )  # fmt: skip
        self.home.record({"engine": self.process.pid})
        wait_until(lambda: bool(self.lives) or self.ended or self.said.get("state") == "spare")
        if ready:
            self.files.permit()
            wait_until(lambda: bool(self.said.get("healthy")))
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def lives(self) -> list[int]:
        """The pids that the engine has had."""
        path = self.folder / "lives"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @property
    def terms(self) -> str:
        path = self.folder / "terms"
        return path.read_text() if path.exists() else ""

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def said(self) -> RestartState:
        """Return the state file."""
        return self.files.read() or {}

    def lived(self, times: int) -> bool:
        return len(self.lives) == times

    @property
    def told(self) -> str:
        return self.log.read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.lives[-1], number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(20)

    def left(self) -> list[proc.Process]:
        return processes.ours(proc.scan(), f"{self.home.deployment}/")

    def stop(self, grace: float = 5.0) -> dict[str, Any]:
        text = self.home.run("stop", run_id=None, grace=grace, ray_grace=5.0)[-1]
        self.wait()
        return text
