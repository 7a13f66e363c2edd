"""Logs where the network fails under way, files are rotated, sparse or huge, and the operator's disk is full."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually

Write = Callable[..., Serve]
LOG = "vllm_serve_model0_0.log"

WRITER = """
import os, shutil, sys, time
log, lines = sys.argv[1], int(sys.argv[2])
for number in range(lines):
    with open(log, "a") as file:
        file.write("numbered %d\\n" % number)
    if number % 1000 == 999:
        for at in range(9, 0, -1):
            if os.path.exists("%s.%d" % (log, at)):
                os.rename("%s.%d" % (log, at), "%s.%d" % (log, at + 1))
        shutil.copyfile(log, log + ".1")
        os.truncate(log, 0)
    time.sleep(0.002)
"""
"""Numbered lines into a log that is copied and truncated now and then."""


@pytest.fixture
def served(operator: Operator, serve: Write) -> Iterator[Serve]:
    """Provide a deployment on node1 and node2 that ran and was stopped: it has logs that nobody writes to."""
    deployment = serve(models=2)
    operator("run", "-c", deployment.config)
    operator("stop", "--name", deployment.name)
    yield deployment
    operator("cleanup", "--name", deployment.name)


def logs_of(host: Host, served: Serve) -> Path:
    return host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/logs"


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"numbered (\d+)", text)]


def test_a_cable_that_is_cut_while_logs_are_rotated_costs_no_line_and_doubles_none(
    lab: Lab, operator: Operator, served: Serve
) -> None:
    host, lines = lab.hosts[0], 4000
    following = operator.start("logs", "-f", "--name", served.name, "--tail", "0", "--kind", "engine")

    def write() -> None:
        with (logs_of(host, served) / LOG).open("a") as file:
            file.write("is it followed?\n")

    following.until(write, "is it followed")
    log = f"/root/.flagscale-deploy/{served.name}/{host.name}/logs/vllm_serve_numbered.log"
    host.run(["bash", "-c", f"python3 -c '{WRITER}' {log} {lines} >/dev/null 2>&1 &"])
    following.wait_for("numbered 300\n")
    host.cut()
    try:
        following.wait_for("node1: the SSH connection was lost; retrying for up to 300 s", within=60)
    finally:
        host.join()
    following.wait_for("node1: the connection is back", within=60)
    following.wait_for(f"numbered {lines - 1}\n", within=60)
    assert eventually(lambda: len(numbers(following.said)) >= lines)
    following.send(2)
    output = following.end(exits=130).out
    assert sorted(numbers(output)) == list(range(lines))


def test_a_collection_that_is_cut_goes_on_and_a_second_one_brings_only_what_is_new(
    lab: Lab, operator: Operator, served: Serve, tmp_path: Path
) -> None:
    host = lab.hosts[0]
    there = logs_of(host, served)
    (there / LOG).write_bytes(os.urandom(6 << 20))
    with (there / "core.log").open("wb") as core:
        core.truncate(50 << 30)
        core.seek(25 << 30)
        core.write(b"data")
    into = tmp_path / "logs"
    here = into / "node1/logs"
    host.rate(8)
    try:
        collecting = operator.start("logs", "-o", into, "--name", served.name)
        assert eventually(lambda: (here / LOG).exists() and (here / LOG).stat().st_size > 1 << 20)
        host.cut()
        collecting.wait_for("node1: the SSH connection was lost", within=60)
    finally:
        host.rate(None)
        host.join()
    collecting.wait_for("node1: the connection is back", within=60)
    collecting.end(exits=0)
    assert (here / LOG).read_bytes() == (there / LOG).read_bytes()
    assert (here / "core.log").stat().st_size == 50 << 30
    assert (here / "core.log").stat().st_blocks < 1 << 14
    with (there / LOG).open("ab") as file:
        file.write(b"one more\n")
    output = operator("logs", "-o", into, "--name", served.name, "--json").json["hosts"]
    assert (output["node1"]["received"], output["node2"]["received"]) == (9, 0)
    assert (here / LOG).read_bytes() == (there / LOG).read_bytes()


def test_limits_are_said_and_what_came_is_kept(lab: Lab, operator: Operator, served: Serve, tmp_path: Path) -> None:
    there = logs_of(lab.hosts[0], served)
    (there / LOG).write_bytes(b"first\n" + b"." * (2 << 20) + b"last\n")
    (there / "old.log").write_text("old\n")
    os.utime(there / "old.log", (1e9, 1e9))
    words = ("--name", served.name, "--limit", "node1")
    less = ("--max-size", "1M", "--since", "1d", "--json")
    output = operator("logs", *words, "-o", tmp_path / "cut", *less).json["hosts"]["node1"]
    assert output["cut"] == {f"logs/{LOG}": (1 << 20) + 11}
    assert output["older"] >= 1
    cut = (tmp_path / "cut/node1/logs" / LOG).read_bytes()
    assert cut.startswith(b"first\n")
    assert cut.endswith(b"last\n")
    assert f"\n[flagscale-deploy: {(1 << 20) + 11} bytes cut]\n".encode() in cut
    ended = operator("logs", *words, "-o", tmp_path / "total", "--max-total", "1M", exits=1)
    assert "node1: collecting stopped after 1,048,576 bytes" in ended.err
    assert 0 < (tmp_path / "total/node1/logs" / LOG).stat().st_size <= 1 << 20


def test_a_full_disk_of_the_operators_is_said_with_a_remedy_and_what_is_whole_is_kept(
    lab: Lab, operator: Operator, served: Serve, tmp_path: Path
) -> None:
    there = logs_of(lab.hosts[0], served)
    (there / "a.log").write_bytes(b"whole\n")
    (there / LOG).write_bytes(os.urandom(3 << 20))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        ended = operator("logs", "--name", served.name, "-o", small, "--limit", "node1", exits=1)
        assert f"node1: logs cannot be written to {small}/node1: No space left on device" in ended.err
        assert "free space and repeat" in ended.err
        assert "Traceback" not in ended.said
        assert (small / "node1/logs/a.log").read_bytes() == b"whole\n"
        subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
        operator("logs", "--name", served.name, "-o", small, "--limit", "node1")
        assert (small / "node1/logs" / LOG).read_bytes() == (there / LOG).read_bytes()
    finally:
        subprocess.run(["umount", small], check=True)
