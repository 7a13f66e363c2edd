"""Follow logs with the real program on this machine, through rotations and a connection that is cut.

No line is lost and none is repeated. `CutConnection` is a stand-in for a network that fails.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.errors import AuthenticationError, InterruptedByUser, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import Collected, LineSelection, ReadLimits, collect_logs, read_logs
from flagscale_deploy.transport.base import Running, Source
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.local import LocalConnection
from tests.component.remote.living import Home, wait_until
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering

HERE = Host("gpu01", "localhost", connection="local", python=sys.executable)


class CutConnection(LocalConnection):
    """This machine, over a network that fails after so many bytes, at any place in them."""

    def __init__(self, after: Iterator[int]) -> None:
        super().__init__(HERE)
        self._after = after

    def start(self, command: str) -> Any:
        return CutRunning(super().start(command), next(self._after))


class CutRunning:
    """A program whose output ends in the middle."""

    def __init__(self, running: Running, after: int) -> None:
        self._running, self._left = running, after
        self.send, self.close_stdin = running.send, running.close_stdin
        self.exit_code, self.close = running.exit_code, running.close

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        if self._left <= 0:
            raise UnreachableError("gpu01", "the SSH connection was lost")
        chunk = self._running.read(timeout)
        if chunk is None:
            return None
        source, data = chunk
        kept = data[: self._left]
        self._left -= len(kept)
        return source, kept


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Home(tmp_path, "qwen")


class Follower:
    """`logs -f`, in a thread of its own."""

    def __init__(self, after: Iterator[int], **settings: Any) -> None:
        self.lines: list[str] = []
        self.told: list[str] = []
        self._fleet = Fleet([HERE], connect=lambda _host, _timeout: CutConnection(after))
        self._thread = threading.Thread(target=self._follow, kwargs=settings)
        self._thread.start()

    def _follow(self, **settings: Any) -> None:
        with self._fleet as fleet:
            try:
                read_logs(
                    fleet, "qwen", lambda _host, _file, lines: self.lines.extend(lines),
                    follow=True, tell=lambda _host, text: self.told.append(text), **settings,
                )  # fmt: skip
            except InterruptedByUser:
                return

    def end(self) -> None:
        self._fleet.cancelled.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def rename(log: Path, _number: int) -> None:
    for number in range(9, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


def copy_and_truncate(log: Path, _number: int) -> None:
    for number in range(9, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def nothing(_log: Path, _number: int) -> None:
    return None


def write(log: Path, lines: int, rotate: Callable[[Path, int], None], chance: random.Random) -> list[str]:
    """Numbered lines, and a rotation now and then, as one writer does it that rotates its own log."""
    written = [f"{number} {'x' * chance.randrange(100)}" for number in range(lines)]
    pause = threading.Event()
    for number, line in enumerate(written):
        with log.open("a") as file:
            half = chance.randrange(len(line))
            file.write(line[:half])
            file.flush()
            file.write(line[half:] + "\n")
        if number % 400 == 399:
            rotate(log, number)
        if number % 20 == 0:
            pause.wait(0.01)  # a writer takes its time
    return written


@pytest.mark.parametrize("rotate", [nothing, rename, copy_and_truncate])
@pytest.mark.parametrize("cuts", [False, True])
def test_every_line_is_told_once(home: Home, rotate: Callable[[Path, int], None], cuts: bool) -> None:
    chance = random.Random(7)
    log = home.state / "logs" / "vllm_serve_qwen_0.log"
    log.write_text("")
    after = iter([chance.randrange(2000, 40_000) for _ in range(6)] if cuts else [])
    follower = Follower(size for source in (after, iter(lambda: 1 << 40, 0)) for size in source)
    try:
        written = write(log, 2000, rotate, chance)
        wait_until(lambda: len(follower.lines) >= len(written), 30)
    finally:
        follower.end()
    assert sorted(follower.lines) == sorted(written)
    assert bool(follower.told) == cuts
    assert follower.told[1::2] == ["the connection is back"] * (len(follower.told) // 2)


def test_a_new_file_that_was_written_while_the_connection_was_lost_is_told_from_its_beginning(home: Home) -> None:
    log = home.state / "logs" / "vllm_serve_qwen_0.log"
    log.write_text("one\n")

    def losses() -> Iterator[int]:
        yield 900  # more than the first two messages
        log.with_name("ray_head.log").write_text("first\nsecond\n")
        yield 1 << 40

    follower = Follower(losses())
    try:
        with log.open("a") as file:
            for number in range(20):
                file.write(f"more {number}\n")
                file.flush()
        wait_until(lambda: "second" in follower.lines)
    finally:
        follower.end()
    assert sorted(follower.lines) == sorted(["one", "first", "second", *(f"more {number}" for number in range(20))])


def test_a_host_that_does_not_come_back_is_lost_and_the_others_are_followed_meanwhile() -> None:
    calls: list[str] = []
    gone = threading.Event()

    def follow(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        calls.append(host.name)
        if host.name == "gpu01":
            gone.set()
            yield UnreachableError("gpu01", "the SSH connection was lost")
        while calls.count("gpu01") < 2:
            yield None
        yield {"file": "e", "lines": ["still here"]}

    seen: list[str] = []
    fleet = FakeFleet(answering(follow=follow), ["gpu01", "gpu02"])
    results = read_logs(
        fleet,
        "qwen",
        lambda _host, _file, lines: seen.extend(lines),
        LineSelection(tail=1),
        follow=True,
        limits=ReadLimits(patience=1.0),
    ).files
    lost = results["gpu01"]
    assert isinstance(lost, UnreachableError)
    assert "not back after 1 s" in lost.problem
    assert seen == ["still here"]
    assert results["gpu02"] == 1


@pytest.mark.parametrize("error", [RemoteError("gpu01", "no Python"), AuthenticationError("gpu01", "refused")])
def test_what_is_no_lost_connection_is_not_tried_again(error: Exception) -> None:
    fleet = FakeFleet(answering(follow=lambda _host, _args: [error]))
    assert read_logs(fleet, "qwen", lambda *_: None, LineSelection(tail=1), follow=True).files["gpu01"] is error
    assert len(fleet.calls) == 1


@pytest.mark.parametrize(
    "odd",
    [
        *({"file": "e", "lines": lines} for lines in (None, 7, "text", {"a": 1}, [[1], None, {"x": "y"}])),
        {"file": 7, "lines": ["x"]},
    ],
)
def test_lines_that_are_none_are_that_hosts_error(odd: dict[str, object]) -> None:
    seen: list[str] = []

    def follow(host: Host, _args: object) -> list[Output]:
        return [odd] if host.name == "gpu01" else [{"file": "e", "lines": ["x" * (1 << 20)]}, {"alive": True}]

    fleet = FakeFleet(answering(follow=follow), ["gpu01", "gpu02"])
    files = read_logs(
        fleet, "qwen", lambda _host, _file, lines: seen.extend(lines), LineSelection(tail=1), follow=True
    ).files
    assert isinstance(files["gpu01"], RemoteError)
    assert files["gpu02"] == 1
    assert 60_000 < len(seen[0]) < 70_000


@pytest.mark.parametrize("at", [{"device": 1}, {"offset": "x" * 10_000}, 7, {"device": [], "inode": 1}])
def test_a_place_that_is_none_is_not_kept(at: object) -> None:
    fleet = FakeFleet(answering(follow=lambda _host, _args: [{"file": "e", "lines": [], "at": at}]))
    error = read_logs(fleet, "qwen", lambda *_: None, LineSelection(tail=1), follow=True).files["gpu01"]
    assert isinstance(error, RemoteError)


def test_a_collection_is_exact_and_goes_on_over_any_cut(home: Home, tmp_path: Path) -> None:
    chance = random.Random(3)
    log = home.state / "logs" / "vllm_serve_qwen_0.log"
    log.write_bytes(chance.randbytes(3 << 20))
    with log.with_name("core.log").open("wb") as core:
        core.truncate(1 << 40)
        core.seek(1 << 39)
        core.write(b"data")
    os.symlink("/etc/passwd", log.with_name("link.log"))
    (log.parent / os.fsdecode(b"a\xff\n.log")).write_bytes(b"odd")
    cuts = iter([1000, 900_000, 2_000_000, 1 << 40, 1 << 40])
    with Fleet([HERE], connect=lambda _host, _timeout: CutConnection(cuts)) as fleet:
        collected = collect_logs(fleet, "qwen", tmp_path / "here", patience=20)["gpu01"]
        assert isinstance(collected, Collected), collected
        there = {path.name: path for path in log.parent.iterdir() if not path.is_symlink()}
        here = {path.name: path for path in (tmp_path / "here/gpu01/logs").iterdir()}
        assert set(here) == set(there)
        assert here[log.name].read_bytes() == log.read_bytes()
        assert here["core.log"].stat().st_size == 1 << 40
        assert here["core.log"].stat().st_blocks < 1 << 14
        with here["core.log"].open("rb") as copy:
            copy.seek(1 << 39)
            assert copy.read(4) == b"data"
        with log.open("ab") as file:
            file.write(b"one more\n")
        again = collect_logs(fleet, "qwen", tmp_path / "here")["gpu01"]
    assert isinstance(again, Collected)
    assert again.received == len(b"one more\n")
    assert here[log.name].read_bytes() == log.read_bytes()
