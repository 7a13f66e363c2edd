"""Real processes for tests to find and end, and programs of `remote/` run as a host runs them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flagscale_deploy.remote.system.proc import MARKER, alive, parse_stat, scan
from flagscale_deploy.remote.wire import PREFIX
from flagscale_deploy.transport.bundle import bundle
from flagscale_deploy.transport.remote_program import PYTHON_WORDS

HOST_PYTHON = os.environ.get("FSD_HOST_PYTHON", sys.executable)
"""The Python that programs run under; set it to try another, say python3.8."""

LOSE_ENVIRONMENT = """
import ctypes
variables = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
for number in range(10000):
    if not variables[number]:
        break
    ctypes.memset(variables[number], ord("x"), len(ctypes.string_at(variables[number])))
"""
"""What a program that renames itself does to its own environment (setproctitle writes its title there)."""

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)"


class Household:
    """Processes started by a test; every one that they told of is ended with it."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._told: set[int] = set()

    def python(self, code: str, marker: str = "", *, session: bool = True, expect: int = 1) -> list[int]:
        """Start Python with this code in a session of its own; return its pid and those that it prints.

        It returns once `expect` lines were printed. A number that it prints is a pid, and will be ended.
        """
        return self.start([sys.executable, "-c", code], marker, session=session, expect=expect)

    def start(self, argv: list[str], marker: str = "", *, session: bool = True, expect: int = 1) -> list[int]:
        environment = {name: value for name, value in os.environ.items() if name != MARKER}
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=session,
            env=environment | ({MARKER: marker} if marker else {}),
        )
        self._running.append(process)
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(expect)]
        pids = [int(line) for line in lines if line.isdigit()]
        self._told.update(pids)
        return [process.pid, *pids]

    def reap(self, pid: int) -> None:
        """Wait for a process that was started here, so that it leaves no zombie."""
        next(process for process in self._running if process.pid == pid).wait(10)

    def end(self) -> None:
        for pid in self._told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._running:
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()


class Home:
    """A home directory on a host, and the programs that work in it."""

    def __init__(self, path: Path, deployment: str, host: str = "gpu01") -> None:
        self.path, self.deployment, self.host = path, deployment, host
        self.stderr: int | None = None
        self.state = path / ".flagscale-deploy" / deployment / host
        for name in ("scripts", "logs", "secrets"):
            (self.state / name).mkdir(parents=True)

    def record(self, roles: Mapping[str, int] | None = None, **more: Any) -> dict[str, Any]:
        """Write the record, with the processes that have these roles; returns it."""
        processes = [{"role": role, **birth(pid)} for role, pid in (roles or {}).items()]
        content = {"deployment": self.deployment, "host": self.host, "run_id": "r1", "processes": processes, **more}
        (self.state / "record.json").write_text(json.dumps(content))
        return content

    def read_record(self) -> Any:
        return json.loads((self.state / "record.json").read_text())

    def run(self, module: str, **args: Any) -> list[dict[str, Any]]:
        """Run a program to its end; the messages it said."""
        with self.open(module, **args) as program:
            output = program.communicate(timeout=60)[0]
        assert program.returncode == 0, output
        return messages(output)

    def hear(self, module: str, **args: Any) -> list[dict[str, Any]]:
        """Run a program to its end while the operator listens; return its messages."""
        with self.open(module, **args) as program:
            assert program.stdout is not None
            return messages(program.stdout.read())

    def open(self, module: str, **args: Any) -> subprocess.Popen[bytes]:
        """Start a program; its standard input stays open."""
        program = subprocess.Popen(
            [HOST_PYTHON, *PYTHON_WORDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=os.environ | {"HOME": str(self.path)},
        )
        assert program.stdin is not None
        program.stdin.write(bundle(module, {"deployment": self.deployment, "host": self.host, **args}))
        program.stdin.flush()
        return program


def messages(output: bytes) -> list[dict[str, Any]]:
    """Return what a program said."""
    lines = output.decode().splitlines()
    return [json.loads(line[len(PREFIX) :]) for line in lines if line.startswith(PREFIX)]


def birth(pid: int) -> dict[str, Any]:
    """Return what tells a process from another that gets its pid later, as a record keeps it."""
    start_ticks = parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).start_ticks
    return {
        "pid": pid,
        "start_ticks": start_ticks,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }


def runs(pid: int) -> bool:
    """Whether a process lives; a zombie doesn't."""
    return any(process.pid == pid and alive(process) for process in scan())


def wait_until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something to be so, and ask for a quarter of the time at most; fails if it takes longer."""
    end = time.monotonic() + seconds
    asked = time.monotonic()
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(max(0.01, 3 * (time.monotonic() - asked)))
        asked = time.monotonic()


@contextlib.contextmanager
def household() -> Iterator[Household]:
    """Provide a household that is gone afterwards."""
    people = Household()
    try:
        yield people
    finally:
        people.end()
