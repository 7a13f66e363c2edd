"""Commands that print without end, hang, or leave children behind."""

from __future__ import annotations

import resource
import time

from flagscale_deploy.remote.system import subprocesses


def test_a_command_that_prints_without_end_takes_no_memory_and_no_longer_than_its_time() -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    ended = subprocesses.run(["sh", "-c", "yes & yes >&2"], 3.0)
    assert time.monotonic() - began < 30
    assert ended.code is None
    assert len(ended.stdout) == len(ended.stderr) == subprocesses.KEPT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_the_last_of_the_output_is_kept_and_whether_any_was_cut() -> None:
    ended = subprocesses.run_bytes(["seq", "100000"], 20.0, kept=100)
    assert ended.stdout.endswith(b"99999\n100000\n")
    assert (len(ended.stdout), ended.cut, ended.code) == (100, True, 0)
    whole = subprocesses.run_bytes(["cat"], 20.0, stdin=b"x" * 300_000, kept=1 << 20)
    assert (whole.stdout, whole.cut) == (b"x" * 300_000, False)


def test_a_child_that_keeps_the_output_open_is_not_waited_for() -> None:
    began = time.monotonic()
    ended = subprocesses.run(["sh", "-c", "setsid sleep 90 & echo said; exit 3"], 60.0)
    assert (ended.code, ended.stdout) == (3, "said\n")
    assert time.monotonic() - began < 30


def test_a_command_that_closes_its_output_is_waited_for() -> None:
    assert subprocesses.run(["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 4"], 10.0).code == 4
