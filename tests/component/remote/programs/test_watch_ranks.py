"""Watching a run's processes on a host: real ones, with the names that Ray and vLLM give theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.engine.activity import Activity
from flagscale_deploy.remote.system.proc import Process, scan
from tests.component.remote.living import Home, Household, birth, messages, wait_until

COMMANDS = {
    "/opt/v/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/x": "raylet",
    "/opt/v/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/x": "gcs_server",
    "ray::RayWorkerProc": "rank",
    "ray::RayWorkerWrapper.execute_method": "rank",
    "VLLM::Worker_TP1": "rank",
    "VLLM::EngineCore_DP0": "engine-core",
    "ray::IDLE": None,
    "ray::DashboardAgent": None,
    "python3 -m raylet_notes": None,
    "/opt/v/bin/python3 /opt/v/bin/vllm serve /models/raylet": None,
}


def process(command: str) -> Process:
    return Process(7, 1, 7, 1, "S", 0, command, "")


@pytest.mark.parametrize(("command", "part"), COMMANDS.items())
def test_a_process_is_known_by_its_name(command: str, part: str | None) -> None:
    assert ranks.part(process(command)) == part


@pytest.mark.parametrize(
    ("command", "title"),
    [("ray::RayWorkerWrapper.execute_method", "ray::RayWorkerWrapper"), ("/opt/x/raylet --a=/b.c", "raylet")],
)
def test_a_process_is_called_by_its_name_alone(command: str, title: str) -> None:
    assert ranks.title(process(command)) == title


class Watching:
    """A running `watch_ranks`, and what it has said."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self.program, self.said = program, list[dict[str, Any]]()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            self.said += messages(line)

    def latest(self, key: str) -> Any:
        return next((message[key] for message in reversed(self.said) if key in message), None)


@contextmanager
def watching(home: Home, **more: Any) -> Iterator[Watching]:
    with home.open("watch_ranks", run_id="r1", **more) as program:
        yield Watching(program)
        assert program.stdin is not None
        program.stdin.close()
        assert program.wait(30) == 0


def start(people: Household, home: Home, name: str) -> int:
    pid = people.start(["bash", "-c", f"echo up; exec -a {name} sleep 600"], f"{home.deployment}/r1")[0]
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bash"))
    return pid


def test_a_rank_that_dies_is_told_at_once(home: Home, people: Household) -> None:
    home.record()
    rank, raylet = start(people, home, "VLLM::Worker_TP1"), start(people, home, "/x/raylet")
    with watching(home) as watch:
        wait_until(lambda: watch.latest("ranks") == {"rank": 1, "raylet": 1})
        os.kill(rank, signal.SIGKILL)
        died = time.monotonic()
        wait_until(lambda: watch.latest("gone") is not None, 60)
        assert time.monotonic() - died < 10
        assert watch.latest("gone") == [{"pid": rank, "part": "rank", "title": "VLLM::Worker_TP1"}]
        wait_until(lambda: watch.latest("ranks") == {"raylet": 1})
    assert raylet


def test_another_runs_processes_are_not_watched(home: Home, people: Household) -> None:
    home.record()
    people.start(["bash", "-c", "echo up; exec -a VLLM::Worker_TP1 sleep 600"], f"{home.deployment}/r2")
    ours = start(people, home, "VLLM::EngineCore")
    with watching(home) as watch:
        wait_until(lambda: watch.latest("ranks") == {"engine-core": 1})  # at first it may be bash still
    assert [message["ranks"] for message in watch.said if "rank" in message.get("ranks", {})] == []
    assert ours


def test_of_a_group_that_is_started_alone_no_other_is_watched(home: Home, people: Household) -> None:
    others = start(people, home, "VLLM::EngineCore")
    ours = start(people, home, "VLLM::Worker_TP0")
    home.record(processes=[{"role": "engine", **birth(ours), "log": "", "script": "serve_m_1.sh"},
                           {"role": "engine", **birth(others), "log": "", "script": "serve_m_0.sh"}])  # fmt: skip
    with watching(home, scripts=["serve_m_1.sh"]) as watch:
        wait_until(lambda: watch.latest("ranks") is not None)
        os.kill(others, signal.SIGKILL)
        os.kill(ours, signal.SIGKILL)
        wait_until(lambda: watch.latest("gone") is not None)
        wait_until(lambda: watch.latest("ranks") == {})
    assert [process["pid"] for message in watch.said for process in message.get("gone", [])] == [ours]


def test_how_long_nothing_moves_is_told_and_who_is_stopped(home: Home, people: Household) -> None:
    home.record()
    rank = start(people, home, "ray::RayWorkerProc")
    with watching(home) as watch:
        wait_until(lambda: of_ray(watch)["read"] > 1.5)
        assert of_ray(watch)["used"] > 1.5
        assert of_ray(watch)["stopped"] == []
        os.kill(rank, signal.SIGSTOP)
        wait_until(lambda: of_ray(watch)["stopped"] == ["ray::RayWorkerProc"])


def of_ray(watch: Watching) -> dict[str, Any]:
    nothing = {"read": 0.0, "used": 0.0, "stopped": []}
    return dict((watch.latest("still") or {}).get("", nothing))


SPINS = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'while True: pass'], \
start_new_session=True)\nprint(child.pid, flush=True)\nchild.wait()"


def test_every_engine_is_watched_by_itself_with_what_it_started(home: Home, people: Household) -> None:
    """One spins in a child of its own; what the other one does is its own."""
    marker = f"{home.deployment}/r1"
    spinning, _child = people.python(SPINS, marker)
    waiting = people.python("print('up', flush=True)\n" + WAITS, marker)[0]
    scripts = {"engine": "one.sh", "engine ": "two.sh"}
    record = home.record({"engine": spinning, "engine ": waiting})
    for process in record["processes"]:
        process.update(role="engine", script=scripts[process["role"]])
    home.record(processes=record["processes"])
    with watching(home) as watch:
        wait_until(lambda: used(watch, "two.sh") > 1.2 > used(watch, "one.sh"), 60)
        still = watch.latest("still")
    assert set(still) == {"one.sh", "two.sh"}
    assert still["one.sh"]["read"] > 1.0


def used(watch: Watching, script: str) -> float:
    """Return for how many seconds a script's processes have used no CPU time."""
    return float(((watch.latest("still") or {}).get(script) or {"used": 0.0})["used"])


READS = """
import time
file = open("/dev/zero", "rb", buffering=0)
while True:
    file.read(1 << 20)
    time.sleep(0.05)
"""
WAITS = "import time; time.sleep(99)"


@pytest.mark.parametrize(
    ("work", "which"),
    [("while True: pass", 1), (READS, 0)],
    ids=["computes", "reads"],
)
def test_who_computes_or_reads_is_not_still(people: Household, work: str, which: int) -> None:
    busy, idle = (people.python(f"print('up', flush=True)\n{code}")[0] for code in (work, WAITS))
    by_pid = {process.pid: process for process in scan()}
    working, waiting = Activity(), Activity()
    working.look([by_pid[busy]])
    waiting.look([by_pid[idle]])
    began = time.monotonic()
    while min(waiting.look([by_pid[idle]])) < 1.2 or working.look([by_pid[busy], by_pid[idle]])[which] > 0.7:
        working.look([by_pid[busy], by_pid[idle]])
        assert time.monotonic() - began < 60
        time.sleep(0.3)
    assert (working.look([by_pid[busy]])[0] > 1.0) == (which == 1)
