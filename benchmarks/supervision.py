"""Measure what supervisors cost while nothing happens, and how soon those of a group notice a loss or a hang.

python -m benchmarks.supervision [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.running import bench
from tests.component.remote.living import wait_until
from tests.component.remote.stand_in import ENGINE, reply
from tests.component.remote.supervisor.test_group import Group
from tests.component.remote.supervisor.test_supervise import SERVING, free_port

NAME = "supervision"
IDLE = "".join(
    f'vllm:{name}{{engine="0"}} {value}.0\n'
    for name, value in {
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "iteration_tokens_total_count": 9,
        "generation_tokens_total": 9,
        "prompt_tokens_total": 9,
    }.items()
)
FILLER = "# HELP vllm:request_queue_time_seconds Histogram of time spent in WAITING phase for request.\n" * 800
"""vLLM 0.32's page of metrics has about 80 KB."""
HANG, LOST = 10.0, 10.0
IDLE_SECONDS, QUICK_SECONDS = 120.0, 8.0


@contextmanager
def serving(metrics: str, *options: str) -> Iterator[Group]:
    """Provide a group of three ranks, whose driver is a stand-in for an engine with these metrics."""
    with tempfile.TemporaryDirectory(prefix="fsd-bench-") as folder:
        group, port = Group(Path(folder), f"bench-{os.getpid()}"), free_port()
        replies = {**ENGINE, "/metrics": reply(metrics + FILLER)}
        behaviour = json.dumps({"address": "127.0.0.1", "replies": replies})
        health = f"--health=http://127.0.0.1:{port}/health", "--model=m", f"--lost={LOST:g}"
        try:
            group.start_rank(0, *health, *options, engine=SERVING, PORT=str(port), BEHAVIOUR=behaviour)
            for number in (1, 2):
                group.start_rank(number, f"--lost={LOST:g}")
            group.leader.files.permit()
            wait_until(lambda: all(rank.said.get("healthy") for rank in group.ranks))
            yield group
        finally:
            group.end()


def measure(quick: bool) -> list[Figure]:
    """Take all figures; the quick run only those of an idle deployment."""
    with serving(IDLE, "--hang=600", "--interval=60") as group:
        figures = _idle(group, QUICK_SECONDS if quick else IDLE_SECONDS)
        if quick:
            return figures
        figures.append(_notice(group, "a rank that is killed", group.ranks[1].kill, 2.0))
    with serving(IDLE, "--hang=600", "--interval=60") as group:
        silent = group.ranks[1]
        figures.append(
            _notice(group, "a host that is lost", lambda: os.kill(silent.pid, signal.SIGSTOP), 5.0, less=LOST)
        )
        os.kill(silent.pid, signal.SIGCONT)
    # The stand-in would answer a probe.
    busy = IDLE.replace('running{engine="0"} 0.0', 'running{engine="0"} 1.0')
    with serving(busy, f"--hang={HANG:g}", "--interval=0") as group:
        figures.append(_notice(group, "a hang", lambda: None, 5.0, less=HANG))
    return figures


def _idle(group: Group, seconds: float) -> list[Figure]:
    time.sleep(2)
    before = [_cpu(rank.pid) for rank in group.ranks]
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    shares = [100 * (_cpu(rank.pid) - cpu) / passed for rank, cpu in zip(group.ranks, before, strict=True)]
    memory = max(_resident(rank.pid) for rank in group.ranks)
    detail = f"a driver's; a follower's {shares[1]:.2g} %"
    return [
        Figure(NAME, "CPU of a supervisor, idle", max(shares), "% of a core", 0.5, detail),
        Figure(NAME, "resident memory of a supervisor", memory, "MiB", 25),
    ]


def _notice(group: Group, what: str, act: Callable[[], object], target: float, less: float = 0.0) -> Figure:
    """Return the seconds from an act until the leader restarts the group, without those that it is to wait."""
    began = time.monotonic()
    act()
    wait_until(lambda: group.leader.said.get("state") == "restarting")
    detail = f"beyond the {less:g} s that it is to last" if less else ""
    return Figure(NAME, f"until {what} is noticed", max(0.0, time.monotonic() - began - less), "s", target, detail)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
