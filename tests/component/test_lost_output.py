"""Where output goes nowhere any more, a command still does what it was told, and says so by its exit status."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from flagscale_deploy import api
from flagscale_deploy.cli.options import JSON, command, options
from flagscale_deploy.errors import DeployError
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.streams import for_progress
from tests.unit.api.world import World
from tests.unit.sources import ROOT

STOP = "{python} -m flagscale_deploy stop -i localhost --name lost-output"
PROGRESS = {
    "a full disk": f"{STOP} 2>/dev/full",
    "a closed descriptor": f"{STOP} 2>&-",
    "a reader that has gone": f"{STOP} 2> >(exit)",
}
RESULTS = {
    "a full disk": (f"{STOP} >/dev/full", 1, "✗ the result cannot be written to standard output: No space left"),
    "a closed descriptor": (f"{STOP} >&-", 0, "nothing was running"),
    "a reader that has gone": (f"{STOP} > >(exit)", 1, "nothing was running"),
}


def shell(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home)}
    text = line.format(python=sys.executable)
    return subprocess.run(
        ["bash", "-c", text], cwd=home, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("line", PROGRESS.values(), ids=PROGRESS)
def test_progress_that_nobody_can_read_ends_no_act(tmp_path: Path, line: str) -> None:
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "localhost: nothing was running" in done.stdout


@pytest.mark.parametrize(("line", "status", "error"), RESULTS.values(), ids=RESULTS)
def test_a_result_that_cannot_be_written_is_a_failure_after_the_act(
    tmp_path: Path, line: str, status: int, error: str
) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == status
    assert error in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["--help", "--version", "run --help", "schema serve", "completion bash"])
def test_what_click_prints_and_nobody_can_take_is_one_line_of_error(tmp_path: Path, words: str) -> None:
    done = shell(f"{{python}} -m flagscale_deploy {words} >/dev/full", tmp_path)
    error = "✗ the result cannot be written to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, error)
    assert shell(f"{{python}} -m flagscale_deploy {words} >&-", tmp_path).stderr == ""


def test_a_reader_that_takes_nothing_delays_no_act(tmp_path: Path) -> None:
    """Ctrl-S, and a pager that waits at its first page, hold a command's progress up for as long as they like."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    words = [sys.executable, "-m", "flagscale_deploy", "stop", "-i", "localhost", "--name", "lost-output"]
    try:
        done = subprocess.run(
            words, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=writing, text=True, timeout=100, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, "  localhost: nothing was running\n")


def test_progress_comes_whole_in_order_and_before_the_result(tmp_path: Path) -> None:
    text = (
        "from flagscale_deploy.output.console import Console\n"
        "console = Console()\n"
        "for number in range(2000): console.note(f'line {number} \\u2713')\n"
        "console.print('the result')\n"
        "console.error('the end')\n"
        "console.settle()\n"
    )
    (tmp_path / "speaks.py").write_text(text)
    done = shell("{python} speaks.py 2>&1", tmp_path)
    assert done.stdout.splitlines() == [*(f"line {number} ✓" for number in range(2000)), "the result", "the end"]


@pytest.mark.parametrize("with_thread", [True, False])
@pytest.mark.parametrize("blocking", [True, False])
def test_progress_comes_without_a_thread_and_where_writes_do_not_wait(
    monkeypatch: pytest.MonkeyPatch, with_thread: bool, blocking: bool
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    whole = "line ü\n" * 40_000
    taken: list[bytes] = []
    reader = threading.Thread(target=lambda: taken.extend(iter(lambda: os.read(reading, 1 << 16), b"")))
    reader.start()
    if not with_thread:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        progress = for_progress(stream)
        for line in whole.splitlines(keepends=True):
            progress.write(line)
            progress.settle()
    reader.join(60)
    os.close(reading)
    assert b"".join(taken).decode() == whole


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_few_threads_cost_time_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Where `ulimit -u` allows no more, a run gives back what it has taken.

    Three are enough where the first has ended before the last one is needed.
    """
    console, world = Console(), World(tmp_path)
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        alive = sum(other.name.startswith("fleet") for other in threading.enumerate())
        if thread.name.startswith("fleet") and alive >= threads:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    problem = ""
    with console.progress("run") as progress:
        try:
            api.run(world.request(), say=progress)
        except DeployError as error:
            problem = str(error)
    assert "starts no more threads" in problem or (threads == 3 and not problem)
    assert ("launch" in world.modules) == ("stop" in world.modules or not problem)


class Failing(io.StringIO):
    """A stream that takes so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("writes", [0, 1, 5, 20])
def test_a_terminal_that_goes_away_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    monkeypatch.setattr(sys, "stderr", Failing(writes))
    console, world = Console(), World(tmp_path)
    with console.progress("run") as progress:
        result = api.run(world.request(), say=progress)
    assert result.up is not None
    assert "launch" in world.modules


def test_few_descriptors_cost_the_hosts_that_get_none(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text('hosts:\n  - {name: "h[01:40]", connection: local}\n')
    done = shell(
        "ulimit -n 40; {python} -m flagscale_deploy exec -i hosts.yaml --forks 40 -- echo it-ran; exit $?", tmp_path
    )
    ran, refused = done.stdout.count("it-ran"), done.stderr.count("Too many open files on this machine")
    assert (ran + refused, done.returncode) == (40, 3)
    assert ran
    assert refused
    assert "ulimit -n" in done.stderr
    assert "internal error" not in done.stderr


def failing(error: BaseException) -> Any:
    """Return a command that ends with an error nobody expected."""

    @options(JSON)
    @command
    def broken(_console: Console, **_words: Any) -> NoReturn:
        raise error

    import click

    return click.command(broken)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [(ZeroDivisionError("of ours"), 1, "internal error: ZeroDivisionError"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_json_is_json_also_of_what_nobody_expected(error: BaseException, status: int, text: str) -> None:
    done = CliRunner().invoke(failing(error), ["--json"])
    content = json.loads(done.stdout)
    assert (done.exit_code, content["exit_code"], content["schema"]) == (status, status, 1)
    assert content["error"].startswith(text)


def test_json_has_no_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    Console().json({"a": [float("nan"), {"b": float("inf")}, 1.5], "c": (float("-inf"),)})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, {"b": None}, 1.5], "c": [None]}
