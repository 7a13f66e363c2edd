"""Locks that are held, processes of runs, and Ray of other people."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment import leftovers
from flagscale_deploy.remote.system.proc import Process
from tests.component.remote.living import SLEEP, Home, Household, runs, wait_until

LOCKS = """\
1: POSIX  ADVISORY  READ 4711 08:01:1234 128 128
2: FLOCK  ADVISORY  WRITE 815 fd:00:5678 0 EOF
2: -> FLOCK  ADVISORY  WRITE 816 fd:00:5678 0 EOF
3: OFDLCK ADVISORY  READ -1 00:06:1049 0 EOF
4: FLOCK  ADVISORY  WRITE 0 00:2f:99 0 EOF
5: FLOCK  ADVISORY  READ  900 103:02:42 0 EOF
"""

HOLD = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print('held', flush=True)
time.sleep(600)
"""


def process(command: str, marker: str = "", uid: int | None = None, pid: int = 4711) -> Process:
    return Process(pid, 1, pid, 5, "S", os.getuid() if uid is None else uid, command, marker)


def test_locks_that_are_held_and_none_that_is_waited_for() -> None:
    assert leftovers.parse_locks(LOCKS) == [
        leftovers.Flock(815, "fd:00", 5678),
        leftovers.Flock(900, "103:02", 42),
    ]


def test_a_lock_is_told_while_it_is_held(people: Household, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.path))
    file = home.state / "lock"
    file.write_text('{"who": "bob@ops", "what": "run"}')
    assert leftovers.locks(home.host) == []
    (pid, *_) = people.start([sys.executable, "-c", HOLD, str(file)])
    expected = {"deployment": home.deployment, "pid": pid, "holder": {"who": "bob@ops", "what": "run"}}
    assert leftovers.locks(home.host) == [expected]
    assert leftovers.locks("another-host") == []
    os.kill(pid, 9)
    people.reap(pid)
    assert leftovers.locks(home.host) == []


def test_the_product_s_own_lock_is_seen(home: Home) -> None:
    with home.open("lock", wait=0, beat=1, lease=60, holder={"who": "me"}) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        (answer,) = home.run("probe")
        holding.communicate(timeout=10)
    assert [(lock["deployment"], lock["holder"]["who"]) for lock in answer["locks"]] == [(home.deployment, "me")]
    assert runs(answer["locks"][0]["pid"]) is False


def test_processes_of_runs_are_counted_by_their_marker(people: Household, home: Home) -> None:
    first, second = f"{home.deployment}/r1", f"{home.deployment}/r2"
    people.python(SLEEP, first)
    people.python(SLEEP, first)
    (pid,) = people.python(SLEEP, second)
    (answer,) = home.run("probe")
    assert {marker: count for marker, count in answer["runs"].items() if home.deployment in marker} == {
        first: 2,
        second: 1,
    }
    os.kill(pid, 9)
    wait_until(lambda: not runs(pid))  # a zombie now
    (answer,) = home.run("probe")
    assert second not in answer["runs"]


def test_a_run_of_another_user_is_not_ours() -> None:
    assert leftovers.runs([process("vllm", "qwen/r1", uid=os.getuid() + 1), process("vllm", "qwen/r1")]) == {
        "qwen/r1": 1
    }


RAYLET = "/opt/v/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/ray/s/raylet"
GCS = "/home/a b/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/ray/session/logs"


def test_ray_of_others_is_foreign_and_ours_is_not() -> None:
    foreign = leftovers.foreign_ray([
        process(RAYLET, pid=1001),
        process(GCS, pid=1002),
        process(RAYLET, "qwen/r1", pid=1003),
        process(RAYLET, "qwen/r1", uid=os.getuid() + 1, pid=1004),
        process("tail -f /tmp/ray/raylet", pid=1005),
        process("/usr/bin/python3 -m raylet", pid=1006),
        process("[raylet]", pid=1007),
    ])  # fmt: skip
    assert [process["pid"] for process in foreign] == [1001, 1002, 1004]
    assert foreign[0]["command"] == RAYLET
    assert foreign[0]["user"]


def test_without_lock_files_nobody_holds_a_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert leftovers.locks("gpu01") == []
