"""Time collecting logs beside `ssh host tar c | tar x`, and following them while they grow.

python -m benchmarks.logs [--quick] [--json FILE]                       collecting
python -m benchmarks.loopback benchmarks.logs [--quick] [--json FILE]   following
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import loopback
from benchmarks.deployment import Operator
from benchmarks.figures import Figure
from benchmarks.pairs import run_timed
from benchmarks.running import PRODUCT, ROOT, bench
from tests.lab import Lab

MEGABYTE = 1_000_000
FOLLOWED, LINES_A_SECOND, SECONDS = 32, 2000, 10
LOGS = ".flagscale-deploy/bench/{}/logs"
LINE = (
    "(EngineCore pid={pid}) INFO 11-24 22:{minute:02d}:{second:02d} [loggers.py:{at}] Engine 000: "
    "Avg prompt throughput: {at}.{second} tokens/s, Avg generation throughput: {pid}.{minute} tokens/s, Running: 4\n"
)


def measure(quick: bool) -> list[Figure]:
    """Take the figures of collecting."""
    with tempfile.TemporaryDirectory(prefix="fsd-bench-", dir=loopback.PLACES) as folder:
        place = Path(folder)
        size = (200 if quick else 1000) * MEGABYTE
        figures = _one_host(place / "one", size, 1 if quick else 3)
        if not quick:
            figures += _eight_hosts(place / "eight", size // 8)
    return figures


def _one_host(place: Path, size: int, rounds: int) -> list[Figure]:
    place.mkdir()
    with Lab(hosts=1) as lab:
        _write_logs(lab, size)
        operator = Operator(place, lab.inventory(place / "hosts.yaml"), place / "none")
        plain = _side_by_side(operator, lab, rounds)
        lab.hosts[0].rate(1000)
        shaped = _side_by_side(operator, lab, max(1, rounds - 1))
    what = f"logs -o / ssh tar c | tar x, {size // MEGABYTE} MB"
    return [
        Figure("logs", what, plain[0] / plain[1], "×", 1.25, _rates(size, plain)),
        Figure("logs", f"{what}, 1 Gbit/s", shaped[0] / shaped[1], "×", 0.34, _rates(size, shaped), reached=0.5),
    ]


def _side_by_side(operator: Operator, lab: Lab, rounds: int) -> tuple[float, float]:
    """Return the medians of our command and of tar, run in turn. Raises RuntimeError where the copies differ."""
    ours, theirs = [], []
    for _ in range(rounds):
        shutil.rmtree(operator.place / "ours", ignore_errors=True)
        shutil.rmtree(operator.place / "theirs", ignore_errors=True)
        ours.append(_collect(operator)[0])
        theirs.append(_tar(lab, operator.place / "theirs"))
        mine = next((operator.place / "ours").rglob("engine.log"))
        if subprocess.run(["cmp", mine, operator.place / "theirs/engine.log"], check=False).returncode:
            raise RuntimeError("the collected log differs from the one on the host")
    return statistics.median(ours), statistics.median(theirs)


def _rates(size: int, seconds: tuple[float, float]) -> str:
    return " / ".join(f"{size / MEGABYTE / median:.0f} MB/s" for median in seconds)


def _collect(operator: Operator) -> tuple[float, float, int]:
    argv: list[str | Path] = [
        *PRODUCT,
        "logs",
        "-q",
        "-i",
        operator.inventory,
        "--name",
        "bench",
        "-o",
        operator.place / "ours",
    ]
    return run_timed(argv, cwd=operator.place, env=operator.environment)


def _tar(lab: Lab, into: Path) -> float:
    into.mkdir()
    host = lab.hosts[0]
    pack = shlex.join([*host.ssh_argv(), f"tar c -C {LOGS.format(host.name)} ."])
    return run_timed(["sh", "-c", f"{pack} | tar x -C {into}"], cwd=into, env=dict(os.environ))[0]


def _eight_hosts(place: Path, size: int) -> list[Figure]:
    place.mkdir()
    with Lab(hosts=8) as lab:
        _write_logs(lab, size)
        operator = Operator(place, lab.inventory(place / "hosts.yaml"), place / "none")
        seconds, cpu, memory = _collect(operator)
    what = f"logs -o of 8 hosts, {size // MEGABYTE} MB each"
    return [
        Figure("logs", f"{what}: wall time", seconds, "s", detail=f"{8 * size / MEGABYTE / seconds:.0f} MB/s"),
        Figure("logs", f"{what}: client's CPU / wall time", cpu / seconds, "cores"),
        Figure("logs", f"{what}: client's memory", memory / 1e6, "MB", 150.0),
    ]


def _write_logs(lab: Lab, size: int) -> None:
    block = "".join(_lines(range(20_000))).encode()
    for host in lab.hosts:
        folder = host.directory / "home" / LOGS.format(host.name)
        folder.mkdir(parents=True)
        with (folder / "engine.log").open("wb") as file:
            for _ in range(size // len(block) + 1):
                file.write(block)


def _lines(numbers: Iterable[int]) -> Iterable[str]:
    """Yield lines as vLLM logs them; no two are alike."""
    for at in numbers:
        yield LINE.format(pid=1000 + at * 7919 % 9000, minute=at // 60 % 60, second=at % 60, at=at)


def measure_following(quick: bool) -> list[Figure]:
    """Measure the client's CPU while it follows all hosts of `loopback`'s network; every line has to come, in order."""
    seconds = 3 if quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="fsd-bench-", dir=loopback.PLACES) as folder:
        place = Path(folder)
        with loopback.hosts(place, FOLLOWED) as inventory:
            folders = [place / "home" / LOGS.format(f"h{at:04d}") for at in range(FOLLOWED)]
            for log_folder in folders:
                log_folder.mkdir(parents=True)
                (log_folder / "engine.log").touch()
            cpu = _follow(place, inventory, folders, seconds)
    what = f"logs -f of {FOLLOWED} hosts, {LINES_A_SECOND} lines/s each: client's CPU"
    detail = f"{FOLLOWED * LINES_A_SECOND * seconds:,} lines, none lost"
    return [Figure("logs", what, cpu / seconds, "cores", 1.0, detail)]


def _follow(place: Path, inventory: Path, folders: list[Path], seconds: int) -> float:
    """Return the client's CPU seconds for the lines of so many seconds. Raises RuntimeError where one is missing."""
    expected = LINES_A_SECOND * seconds
    argv: list[str | Path] = [*PRODUCT, "logs", "-f", "--json", "--tail", "0", "-i", inventory, "--name", "bench"]
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": str(ROOT)}
    received = place / "received.jsonl"
    with (
        received.open("wb") as file,
        subprocess.Popen(argv, stdout=file, stderr=subprocess.DEVNULL, env=env, cwd=place) as following,
    ):
        _first_lines(folders, received)
        before = _cpu(following.pid)
        _write_in_time(folders, seconds)
        deadline = time.monotonic() + 30
        while received.read_bytes().count(b"\n") < FOLLOWED * expected and time.monotonic() < deadline:
            time.sleep(0.5)
        cpu = _cpu(following.pid) - before
        following.send_signal(signal.SIGINT)
        following.wait(30)
    for at in range(FOLLOWED):
        argv = ["grep", "-c", f'"h{at:04d}".*Avg', received]
        count = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        if int(count) != expected:
            raise RuntimeError(f"h{at:04d}: {count} of {expected} lines came")
    return cpu


def _first_lines(folders: list[Path], received: Path) -> None:
    """Write a line at a time until lines of all hosts have come: from then on every line counts."""
    deadline = time.monotonic() + 60
    while len({line.split(b'"')[3] for line in received.read_bytes().splitlines()}) < len(folders):
        if time.monotonic() > deadline:
            raise TimeoutError("not every host is followed")
        for folder in folders:
            with (folder / "engine.log").open("a") as file:
                file.write("a first line\n")
        time.sleep(0.5)


def _write_in_time(folders: list[Path], seconds: int) -> None:
    files = [(folder / "engine.log").open("a", buffering=1 << 20) for folder in folders]
    began, step = time.monotonic(), LINES_A_SECOND // 10
    for tick in range(seconds * 10):
        text = "".join(_lines(range(tick * step, (tick + 1) * step)))
        for file in files:
            file.write(text)
            file.flush()
        time.sleep(max(0.0, began + (tick + 1) / 10 - time.monotonic()))
    for file in files:
        file.close()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(bench(measure_following if loopback.is_isolated() else measure, sys.argv[1:]))
