"""The lock's program and the one that ends it, as they run on a host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.component.remote.living import Home, messages, runs, wait_until

HOLDER = {"who": "bob@ops", "what": "run", "since": "2026-11-24 22:00:00 +0000"}
BY = {"who": "eve@desk", "since": "2026-11-24 23:00:00 +0000"}


@contextlib.contextmanager
def holding(home: Home, *, beat: float = 0.05, lease: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """Provide the lock's program, which has the lock. What it says is read by the test."""
    with home.open("lock", wait=0, beat=beat, lease=lease, holder=HOLDER) as program:
        try:
            assert hear(program) == {"locked": True}
            yield program
        finally:
            program.kill()


def hear(program: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert program.stdout is not None
    (message,) = messages(program.stdout.readline())
    return message


def the_rest(program: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Return what it says to its end, which has to come by itself; its standard input stays open until then."""
    assert program.stdout is not None
    replies = messages(program.stdout.read())
    program.wait(10)
    return replies


def unlock(home: Home, *, force: bool = False, gone: float = 45.0) -> dict[str, Any]:
    (answer,) = home.run("unlock", force=force, gone=gone, by=BY)
    return answer


def test_a_holder_is_told_with_who_where_and_when(home: Home) -> None:
    with holding(home) as program:
        (answer,) = home.run("lock", wait=0, beat=1, lease=60, holder={"who": "eve"})
        assert answer["locked"] is False
        holder = answer["holder"]
        assert {name: holder[name] for name in HOLDER} == HOLDER
        assert holder["pid"] == program.pid
        assert holder["start_ticks"] > 0
        assert 0 <= answer["silent"] < 10


def test_a_lock_goes_by_itself_when_its_operator_falls_silent(home: Home) -> None:
    with holding(home, lease=0.3) as program:
        replies = the_rest(program)
    assert replies[-1] == {"displaced": {"silent": 0.3}}
    assert unlock(home)["state"] == "free"


def test_a_lock_is_kept_as_long_as_its_operator_answers(home: Home) -> None:
    with holding(home, lease=3) as program:
        assert program.stdin is not None
        for count in range(1, 70):  # longer than the lease
            assert hear(program) == {"beat": count}
            program.stdin.write(b'{"beat": 1}\n')
            program.stdin.flush()
        assert unlock(home)["state"] == "held"


def test_a_living_holder_is_left_alone_and_ended_by_force_with_word_of_who_did_it(home: Home) -> None:
    with holding(home) as program:
        answer = unlock(home)
        assert (answer["state"], answer["pid"], answer["holder"]["who"]) == ("held", program.pid, "bob@ops")
        assert answer["silent"] < 45
        assert runs(program.pid)
        assert unlock(home, force=True)["state"] == "ended"
        assert the_rest(program)[-1] == {"displaced": BY}
    assert unlock(home)["state"] == "free"
    assert not (home.state / "unlocked.json").exists()


def test_a_holder_that_is_silent_for_long_is_ended_without_force(home: Home) -> None:
    with holding(home) as program:
        wait_until(lambda: unlock(home, gone=0.2)["state"] == "ended")
        assert not runs(program.pid)


def test_a_holder_that_does_not_listen_is_killed(home: Home) -> None:
    with holding(home) as program:
        os.kill(program.pid, signal.SIGSTOP)
        assert unlock(home, force=True)["state"] == "ended"
        assert program.wait(10) == -signal.SIGKILL
    assert not (home.state / "unlocked.json").exists()


def test_the_lock_of_a_killed_holder_is_free_and_its_last_holder_is_told(home: Home) -> None:
    home.record()
    with holding(home) as program:
        program.kill()
        program.wait(10)
        answer = unlock(home)
    assert (answer["state"], answer["holder"]["who"]) == ("free", "bob@ops")
    assert (home.state / "lock").read_text() == ""


def test_a_lock_that_no_process_here_holds_is_not_said_to_be_free(home: Home) -> None:
    """As on a shared home directory: whoever holds it is none of the processes that can be seen."""
    with holding(home) as program:
        hidden = subprocess.run(["mountpoint", "-q", "/proc"], check=False).returncode == 0 and os.geteuid() == 0
        if not hidden:
            pytest.skip("hides /proc/locks in a mount namespace: needs root")
        text = json.dumps(str(home.path))
        code = f'mount --bind /dev/null /proc/locks && HOME={text} exec "$@"'
        argv = ["unshare", "-m", "sh", "-c", code, "sh"]
        (answer,) = messages(run_under(argv, home))
        assert answer["state"] == "elsewhere"
        assert answer["filesystem"]
        assert runs(program.pid)


def run_under(prefix: list[str], home: Home) -> bytes:
    import sys

    from flagscale_deploy.transport.bundle import bundle
    from flagscale_deploy.transport.remote_program import PYTHON_WORDS

    args = {"deployment": home.deployment, "host": home.host, "force": True, "gone": 0, "by": BY}
    return subprocess.run(
        [*prefix, sys.executable, *PYTHON_WORDS], input=bundle("unlock", args), stdout=subprocess.PIPE, check=True
    ).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system that cannot be written: needs root")
def test_where_nothing_can_be_written_it_is_said(home: Home) -> None:
    code = f"mount -t tmpfs -o ro none '{home.path}' && HOME='{home.path}' exec \"$@\""
    import sys

    from flagscale_deploy.transport.bundle import bundle
    from flagscale_deploy.transport.remote_program import PYTHON_WORDS

    args = {"deployment": home.deployment, "host": home.host, "wait": 5, "beat": 1, "lease": 60, "holder": HOLDER}
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", code, "sh", sys.executable, *PYTHON_WORDS],
        input=bundle("lock", args), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    (answer,) = messages(ended.stdout)
    assert answer["locked"] is False
    assert answer["problem"] == f"{home.path}/.flagscale-deploy: Read-only file system"
