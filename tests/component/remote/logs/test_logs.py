"""The log files of a deployment: listed, archived, followed, as a host does it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flagscale_deploy.remote.logs import logfiles, open_files, sparse
from flagscale_deploy.remote.programs import archive
from tests.component.remote.living import Home, messages, wait_until

WORKER = "worker-7a3f0c5e9b1d2f48a6c0e4b8d2f6a0c4e8b2d6f0a4c8e2b6d0f4a8c2-01000000-4711.out"
SESSION = "session_2026-11-22_10-26-31_123456_4242"
HANG = "20261130-140211-qwen-0"

Listed = Callable[[], list[logfiles.LogFile]]


@pytest.fixture
def ray_temp(home: Home) -> Iterator[Path]:
    """Ray's temp dir of the deployment, with logs of one session."""
    path = Path(f"/tmp/fsd-{os.getuid()}-{uuid.uuid4().hex[:8]}")
    logs = path / SESSION / "logs"
    (logs / "events").mkdir(parents=True)
    (path / "session_latest").symlink_to(path / SESSION)
    (path / "flagscale-deploy.json").write_text(json.dumps({"deployment": home.deployment}))
    (logs / "raylet.out").write_text("raylet 1\n")
    (logs / "events" / "event_GCS.log").write_text("{}\n")
    (logs / WORKER).write_text("worker 1\nworker 2\n")
    (logs / "link.log").symlink_to("/etc/passwd")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def listed(home: Home, monkeypatch: pytest.MonkeyPatch) -> Listed:
    """Return a function that lists the deployment's log files."""
    monkeypatch.setenv("HOME", str(home.path))
    return lambda: logfiles.listing(home.deployment, home.host)


@pytest.fixture
def full(home: Home, ray_temp: Path) -> Home:
    """Provide a deployment with logs of every kind."""
    (home.state / "logs" / "vllm_serve_qwen_0.log").write_text("engine 1\nengine 2\nengine 3\n")
    (home.state / "logs" / "ray_head.log").write_text("head\n")
    (home.state / "scripts" / "ray_head.sh").write_text("#!/bin/bash\n")
    (home.state / "secrets" / "ray_token").write_text("secret")
    (home.state / "evidence" / HANG).mkdir(parents=True)
    (home.state / "evidence" / HANG / "problem.txt").write_text("hung 10 min\n")
    (home.state / "history.jsonl").write_text("{}\n")
    home.record(ray_temp_dir=str(ray_temp))
    return home


def test_a_session_of_rays_from_before_the_run_is_called_previous(home: Home, ray_temp: Path, listed: Listed) -> None:
    began = os.stat(ray_temp / SESSION).st_mtime
    for started_at, name in ((began - 1, SESSION), (began + 1, f"previous-{SESSION}")):
        home.record(ray_temp_dir=str(ray_temp), started_at=started_at)
        assert f"ray/{name}/raylet.out" in {file.name for file in listed()}


def test_every_log_is_listed_with_its_kind_and_a_relative_name(full: Home, listed: Listed) -> None:
    assert {file.name: file.kind for file in listed()} == {
        "logs/vllm_serve_qwen_0.log": "engine",
        "logs/ray_head.log": "script",
        "scripts/ray_head.sh": "script",
        f"evidence/{HANG}/problem.txt": "script",
        "history.jsonl": "script",
        f"ray/{SESSION}/raylet.out": "ray",
        f"ray/{SESSION}/events/event_GCS.log": "ray",
        f"ray/{SESSION}/{WORKER}": "ray-worker",
    }
    worker = next(file for file in listed() if file.kind == "ray-worker")
    assert worker.size == Path(worker.path).stat().st_size
    assert worker.mtime == Path(worker.path).stat().st_mtime


def test_what_a_program_writes_is_listed_as_its_own_also_without_a_record(home: Home, listed: Listed) -> None:
    for name in ("program_app.log", "app/notes.txt", "router.log.1", "vllm_serve_q.log-20261124"):
        (home.state / "logs" / name).parent.mkdir(exist_ok=True)
        (home.state / "logs" / name).write_text("x")
    assert {file.name: file.kind for file in listed()} == {
        "logs/program_app.log": "engine",
        "logs/app/notes.txt": "engine",
        "logs/router.log.1": "engine",
        "logs/vllm_serve_q.log-20261124": "engine",
    }


def test_logs_are_found_by_their_claim_when_the_record_is_lost(full: Home, listed: Listed) -> None:
    (full.state / "record.json").unlink()
    assert {file.kind for file in listed()} == {"engine", "script", "ray", "ray-worker"}


def test_a_recorded_engine_log_is_the_engines_whatever_its_name(home: Home, listed: Listed) -> None:
    log = home.state / "logs" / "other.log"
    log.write_text("x")
    (home.state / "record.json").write_text(json.dumps({"processes": [{"role": "engine", "log": str(log)}]}))
    assert [file.kind for file in listed()] == ["engine"]


def unpack(output: bytes) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Files by name, from their beginning or from `at`, and all that was said."""
    files: dict[str, bytes] = {}
    messages_read, name, rest = [], "", output
    while rest:
        line, _, rest = rest.partition(b"\n")
        (message,) = messages(line)
        messages_read.append(message)
        if "file" in message and "problem" not in message:
            name = message["file"]
            files[name] = b""
        elif "data" in message:
            files[name], rest = files[name] + rest[: message["data"]], rest[message["data"] :]
        elif "zeros" in message:
            files[name] += bytes(message["zeros"])
    return files, messages_read


def run_archive(home: Home, **args: Any) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    with home.open("archive", **args) as program:
        output = program.communicate(timeout=60)[0]
    assert program.returncode == 0
    return unpack(output)


def test_the_archive_holds_every_log_as_it_is(full: Home, listed: Listed) -> None:
    binary = bytes(range(256)) * 8192
    (full.state / "logs" / "vllm_serve_qwen_0.log").write_bytes(binary)
    files, heard = run_archive(full)
    assert set(files) == {file.name for file in listed()}
    assert files["logs/vllm_serve_qwen_0.log"] == binary
    assert files[f"ray/{SESSION}/{WORKER}"] == b"worker 1\nworker 2\n"
    assert heard[-1] == {"done": True, "older": 0}


def test_of_a_file_over_the_limit_beginning_and_end_are_sent_and_that_is_told(full: Home) -> None:
    files, heard = run_archive(full, max_size=18)
    assert files["logs/vllm_serve_qwen_0.log"] == b"engine 1\nengine 3\n"
    assert files[f"ray/{SESSION}/{WORKER}"] == b"worker 1\nworker 2\n"
    assert [message for message in heard if "cut" in message] == [{"cut": 9}]


def test_files_that_nobody_wrote_to_since_are_left_out(full: Home) -> None:
    os.utime(full.state / "logs" / "ray_head.log", (1000, 1000))
    for asked in ({"since": 2000.0}, {"within": 3600.0}):
        files, heard = run_archive(full, **asked)
        assert "logs/vllm_serve_qwen_0.log" in files
        assert "logs/ray_head.log" not in files
        assert heard[-1] == {"done": True, "older": 1}
        assert "ray_head.log" not in lines_of_files(full.run("follow", tail=1, follow=False, kinds=None, **asked))


def have(**files: bytes) -> dict[str, Any]:
    """Return what the operator tells of its copies."""
    with tempfile.TemporaryFile() as file:
        replies = {}
        for name, content in files.items():
            file.truncate(0)
            os.pwrite(file.fileno(), content, 0)
            replies[f"logs/{name}.log".encode().hex()] = len(content), sparse.digest(file.fileno(), len(content))
        return replies


def test_only_the_rest_is_sent_where_the_beginning_is_the_same(full: Home) -> None:
    places = have(vllm_serve_qwen_0=b"engine 1\nengi", ray_head=b"haed")
    files, heard = run_archive(full, have=places)
    assert files["logs/vllm_serve_qwen_0.log"] == b"ne 2\nengine 3\n"
    assert files["logs/ray_head.log"] == b"head\n"
    assert {message["file"]: message["at"] for message in heard if "at" in message}["logs/vllm_serve_qwen_0.log"] == 13


def test_an_archive_of_nothing_is_empty(home: Home) -> None:
    files, (begun, *heard) = run_archive(home)
    assert (files, heard) == ({}, [{"done": True, "older": 0}])
    assert begun["archive"] == 2


@pytest.mark.parametrize(("zone", "seconds"), [("UTC", 0), ("XXX-8", 28800), ("XXX+5:30", -19800)])
def test_a_host_tells_its_clock_with_the_archive_and_where_it_is_asked(
    full: Home, monkeypatch: pytest.MonkeyPatch, zone: str, seconds: int
) -> None:
    monkeypatch.setenv("TZ", zone)
    _, (archived, *_) = run_archive(full)
    replies, *_ = full.run("follow", tail=1, follow=False, kinds=None, clock=True)
    for reply in (archived, replies):
        assert reply["utc_offset"] == seconds
        assert abs(reply["clock"] - time.time()) < 60
    assert all("lines" in message for message in full.run("follow", tail=1, follow=False, kinds=None))


def test_zeros_are_told_and_not_sent(home: Home) -> None:
    with (home.state / "logs" / "core.log").open("wb") as file:
        file.write(b"a")
        file.truncate(5 << 30)
        file.seek(4 << 30)
        file.write(b"\0" * (3 << 20) + b"z")
    with home.open("archive") as program:
        output = program.communicate(timeout=60)[0]
    assert len(output) < 4 << 20
    assert b"@fsd1 " in output


def test_what_cannot_be_opened_is_told(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    sending = archive.Sending({}, None, None)
    sending.send(open_files.Pinned("logs/link", str(link), None))
    sending.send(open_files.Pinned("logs/gone", "", None, "it could not be opened: No such file or directory"))
    replies = messages(capfd.readouterr().out.encode())
    assert [message["file"] for message in replies] == ["logs/link", "logs/gone"]
    assert all(message["problem"].startswith("it could not be opened: ") for message in replies)


def test_a_file_that_is_truncated_before_its_turn_comes_after_the_copy_that_was_made_of_it(
    capfdbinary: pytest.CaptureFixture[bytes], full: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(full.path))
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    files = open_files.pin(full.deployment, full.host)
    log.with_name(log.name + ".1").write_bytes(log.read_bytes())
    log.write_text("new\n")
    sending = archive.Sending({}, None, None)
    for file in files:
        sending.send(file)
    sending.send_again(open_files.pin(full.deployment, full.host), {file.name for file in files})
    result, heard = unpack(capfdbinary.readouterr().out)
    assert result[f"logs/{log.name}.1"] == b"engine 1\nengine 2\nengine 3\n"
    assert result[f"logs/{log.name}"] == b"new\n"
    assert [message["file"] for message in heard if message.get("again")] == [f"logs/{log.name}"]


def test_each_file_is_held_once_whatever_it_is_called_meanwhile(full: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(full.path))
    log = full.state / "logs" / "ray_head.log"
    listing, turns = logfiles.listing, iter([True])

    def rotating(deployment: str, host: str) -> list[logfiles.LogFile]:
        result = listing(deployment, host)
        if next(turns, False):
            log.rename(log.with_name("ray_head.log.1"))
            log.write_text("younger\n")
        return result

    monkeypatch.setattr(logfiles, "listing", rotating)
    files = {file.name: file.descriptor for file in open_files.pin(full.deployment, full.host)}
    contents = {name: os.pread(descriptor, 100, 0) for name, descriptor in files.items() if descriptor is not None}
    assert contents["logs/ray_head.log"] == b"younger\n"
    assert contents["logs/ray_head.log.1"] == b"head\n"


def lines_of_files(result: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Lines by the last part of the file's name."""
    lines: dict[str, list[str]] = {}
    for message in result:
        lines.setdefault(os.path.basename(message["file"]), []).extend(message["lines"])
    return lines


def test_the_last_lines_of_every_log_are_said_and_scripts_are_no_logs(full: Home) -> None:
    result = lines_of_files(full.run("follow", tail=2, follow=False, kinds=None))
    assert result == {
        "vllm_serve_qwen_0.log": ["engine 2", "engine 3"],
        "ray_head.log": ["head"],
        "raylet.out": ["raylet 1"],
        "event_GCS.log": ["{}"],
        WORKER: ["worker 1", "worker 2"],
    }


def test_only_the_kinds_asked_for_are_said(full: Home) -> None:
    assert set(lines_of_files(full.run("follow", tail=None, follow=False, kinds=["engine", "ray-worker"]))) == {
        "vllm_serve_qwen_0.log",
        WORKER,
    }


def test_without_a_number_all_is_said_to_the_last_word(full: Home) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)) + "no end")
    result = lines_of_files(full.run("follow", tail=None, follow=False, kinds=["engine"]))[log.name]
    assert len(result) == 100_001
    assert result[-2:] == ["line 99999", "no end"]


def test_of_this_run_only_files_that_it_wrote_are_shown(full: Home, ray_temp: Path) -> None:
    logs, began = full.state / "logs", time.time() - 100
    full.record(ray_temp_dir=str(ray_temp), started_at=began)
    for name in ("vllm_serve_qwen_0.previous.log", "vllm_serve_gone_0.log"):
        (logs / name).write_text("of an earlier run\n")
    os.utime(logs / "vllm_serve_gone_0.log", (began - 60, began - 60))
    shutil.copytree(ray_temp / SESSION, ray_temp / "session_2026-11-21_10-26-31_123456_17")
    os.utime(ray_temp / "session_2026-11-21_10-26-31_123456_17", (began - 60, began - 60))
    every, its = (
        {message["file"] for message in full.run("follow", tail=None, follow=False, kinds=None, **more)}
        for more in ({}, {"this_run": True})
    )
    earlier = every - its
    assert {"logs/vllm_serve_qwen_0.log", "logs/ray_head.log", f"ray/{SESSION}/raylet.out"} <= its
    assert {"logs/vllm_serve_qwen_0.previous.log", "logs/vllm_serve_gone_0.log"} <= earlier
    assert {name for name in every if name.startswith("ray/previous-")} <= earlier
    assert any(name.startswith("ray/previous-") for name in earlier)


def test_lines_are_searched_for_texts_in_any_case_and_for_no_patterns(full: Home) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    log.write_text("an ERROR (1)\nwell\nHTTP 500\nan error [2]\nerror, without an end")
    replies = full.run("follow", tail=None, follow=False, kinds=["engine"], grep=["Error", ".*", "http"])
    assert lines_of_files(replies)[log.name] == [
        "an ERROR (1)", "HTTP 500", "an error [2]", "error, without an end"
    ]  # fmt: skip
    last = full.run("follow", tail=None, follow=False, kinds=["engine"])
    places = [{"file": message["file"], "at": message["at"]} for message in last if "at" in message]
    with log.open("a") as file:
        file.write("\nanother ERROR\nwell\n")
    replies = full.run("follow", tail=None, follow=False, kinds=["engine"], grep=["another"], places=places)
    assert lines_of_files(replies)[log.name] == ["another ERROR"]


class Follower:
    """A follow program, and what it has said so far."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self.program = program
        self._said: list[dict[str, Any]] = []
        self._reader = Thread(target=self._read)
        self._reader.start()

    def lines(self, name: str) -> list[str]:
        return lines_of_files(list(self._said)).get(name, [])

    def wait_for(self, name: str, *lines: str) -> None:
        wait_until(lambda: self.lines(name) == list(lines))

    def end(self) -> int:
        """Let go of the lifeline; the exit status."""
        assert self.program.stdin is not None
        self.program.stdin.close()
        code = self.program.wait(10)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            self._said += messages(line)


@pytest.fixture
def follower(full: Home) -> Iterator[Follower]:
    with full.open("follow", tail=1, follow=True, kinds=None) as program:
        result = Follower(program)
        yield result
        if program.poll() is None:
            assert result.end() == 0


def test_new_lines_and_new_files_are_said_as_they_come(full: Home, ray_temp: Path, follower: Follower) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    follower.wait_for(log.name, "engine 3")
    with log.open("a") as writing:
        writing.write("engine 4\nengi")
        writing.flush()
        follower.wait_for(log.name, "engine 3", "engine 4")
        writing.write("ne 5\n")
    follower.wait_for(log.name, "engine 3", "engine 4", "engine 5")
    new = ray_temp / SESSION / "logs" / WORKER.replace("4711", "4712")
    new.write_text("first\nsecond\n")
    follower.wait_for(new.name, "first", "second")


def test_a_truncated_file_is_read_from_its_beginning(full: Home, follower: Follower) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    follower.wait_for(log.name, "engine 3")
    log.write_text("fresh\n")
    follower.wait_for(log.name, "engine 3", "fresh")


def test_a_rotated_file_is_followed_to_its_end_and_not_said_again(
    full: Home, ray_temp: Path, follower: Follower
) -> None:
    log = ray_temp / SESSION / "logs" / "raylet.out"
    follower.wait_for("raylet.out", "raylet 1")
    with log.open("a") as writing:
        log.rename(log.with_name("raylet.out.1"))
        log.write_text("after\n")
        writing.write("before\n")
    wait_until(lambda: sorted(follower.lines("raylet.out")) == ["after", "before", "raylet 1"])
    assert follower.lines("raylet.out.1") == []


def test_the_last_line_of_a_removed_file_is_said(full: Home, follower: Follower) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    follower.wait_for(log.name, "engine 3")
    with log.open("a") as writing:
        log.unlink()
        writing.write("last words")
    wait_until(lambda: follower.lines(log.name)[-1:] == ["last words"])


def test_it_ends_when_standard_input_ends(follower: Follower) -> None:
    follower.wait_for("ray_head.log", "head")
    assert follower.end() == 0


def test_it_ends_when_nobody_reads(full: Home) -> None:
    log = full.state / "logs" / "vllm_serve_qwen_0.log"
    with full.open("follow", tail=1, follow=True, kinds=["engine"]) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.stdout.close()

        def ended() -> bool:
            with log.open("a") as writing:
                writing.write("more\n")
            return program.poll() is not None

        wait_until(ended)
