"""Which processes are a deployment's, with tables of such as can't be had on demand."""

from __future__ import annotations

import os

import pytest

from flagscale_deploy.remote.deployment import processes
from flagscale_deploy.remote.system import proc

MINE = "qwen/r1"


def process(pid: int, ppid: int = 1, sid: int | None = None, start: int = 100, marker: str = "") -> proc.Process:
    return proc.Process(pid, ppid, pid if sid is None else sid, start, "S", os.getuid(), "x", marker)


def among(*table: proc.Process, recorded: tuple[tuple[int, int], ...] = ()) -> set[int]:
    family = processes.Family(recorded, processes.marked("qwen/"))
    return {process.pid for process in family.among(table, asking=99)}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param([process(10, marker=MINE), process(11, 10)], {10, 11}, id="child"),
        pytest.param([process(10, marker=MINE), process(11, 1, 10)], {10, 11}, id="session of a marked leader"),
        pytest.param(
            [process(10, 2, 0, marker=MINE)._replace(sid=0), process(11)._replace(sid=0)], {10}, id="session 0"
        ),
        pytest.param([process(1, 0, marker=MINE), process(11, 1, 1)], set(), id="pid 1"),
        pytest.param(
            [process(10, start=200, marker=MINE), process(11, 10, start=150)], {10}, id="child older than parent"
        ),
        pytest.param(
            [process(11, sid=10, start=150), process(12, sid=10, marker=MINE, start=160)], {12}, id="older member"
        ),
        pytest.param(
            [process(11, sid=10, start=170), process(12, sid=10, marker=MINE, start=160)], {11, 12}, id="younger member"
        ),
        pytest.param(
            [process(10), process(11, sid=10, marker=MINE), process(12, sid=10, start=200)], {11}, id="foreign leader"
        ),
        pytest.param([process(98, marker=MINE), process(99, 98, marker=MINE), process(97, 98)], set(), id="ancestor"),
        pytest.param(
            [process(99, sid=50), process(11, sid=50, marker=MINE), process(12, sid=50)], {11}, id="own session"
        ),
    ],
)
def test_what_is_found_in_a_table(table: list[proc.Process], expected: set[int]) -> None:
    assert among(*table) == expected


def test_a_session_id_that_has_come_round_to_somebody_else_finds_nothing() -> None:
    assert among(process(10, start=900), process(11, sid=10, start=901), recorded=((10, 100),)) == set()


def test_what_another_user_has_in_a_session_of_a_number_that_was_ours_is_theirs() -> None:
    """Also once its leader has ended: a job that was put into the background before a logout, say."""
    theirs = process(11, sid=10, start=901)._replace(uid=os.getuid() + 4711)
    child = process(12, 11, sid=10, start=902)._replace(uid=os.getuid() + 4711)
    ours, hidden = process(13, sid=10, start=903), process(14, sid=10, start=904)._replace(uid=0)
    assert among(theirs, child, ours, hidden, recorded=((10, 100),)) == {13, 14}
    assert among(process(10, start=100), theirs, recorded=((10, 100),)) == {10, 11}, (
        "a program of ours may change its user"
    )


def test_a_name_with_blanks_and_parentheses_is_read() -> None:
    line = b"4711 (VLLM::Engine) (x y) S 1 4711 4710 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 81549 100 200 1844"
    assert proc.parse_stat(line) == proc.Stat("VLLM::Engine) (x y", "S", 1, 4710, 81549, ended=False, kernel=False)


def test_a_kernel_thread_is_told_by_its_flag_whatever_a_program_calls_itself() -> None:
    line = b"31 (kworker/0:1H) I 2 0 0 0 -1 %d 0 0 0 0 0 8 0 0 0 -20 1 0 60 0 0"
    assert proc.parse_stat(line % 69238880).kernel
    assert not proc.parse_stat(line % 4194560).kernel


@pytest.mark.parametrize(("threads", "ended"), [(b"1", True), (b"3", False)])
def test_a_zombie_whose_threads_run_has_not_ended(threads: bytes, ended: bool) -> None:
    line = b"4711 (x) Z 1 4711 4710 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 " + threads + b" 0 81549 0 0"
    assert proc.parse_stat(line).ended is ended
