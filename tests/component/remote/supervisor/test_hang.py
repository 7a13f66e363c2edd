"""Servers that hang under the real supervisor: counters that stand still, probes without answers, stopped processes."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from flagscale_deploy.remote.supervisor import evidence
from flagscale_deploy.remote.system import proc
from tests.component.remote.living import Home, runs, wait_until
from tests.component.remote.supervisor.supervised import Supervised
from tests.component.remote.supervisor.test_supervise import free_port

ENGINE = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
lives, folder = sys.argv[1], os.path.dirname(sys.argv[1])
open(lives, "a").write("%d\\n" % os.getpid())
first = len(open(lives).readlines()) == 1
print("a line of the log", flush=True)
def wish(name):
    return first and os.path.exists(os.path.join(folder, name))
steps = 0
class Replies(BaseHTTPRequestHandler):
    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        global steps
        steps += 0 if wish("still") else 1
        self.reply(200, 'vllm:num_requests_running{engine="0"} %d\\nvllm:iteration_tokens_total_count{engine="0"} %d\\n'
                   % (wish("busy"), steps if wish("busy") else 0))
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open(os.path.join(folder, "asked"), "a").write("%s %s\\n" % (self.headers["Authorization"], body.decode()))
        if wish("mute"):
            time.sleep(600)
        if wish("failing"):
            return self.reply(500, "engine is dead")
        if wish("refusing"):
            return self.reply(400, "the prompt is too long")
        self.reply(200, json.dumps({"choices": [{"text": " a"}], "usage": {"completion_tokens": 1}}))
    def log_message(self, *words):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Replies).serve_forever()
"""
"""An engine that does in its first life what files beside `lives` say: it is busy, and stands still, or is mute."""


class Hanging:
    """An engine that is supervised with `hang: 3`, in place of the ten minutes of a real one."""

    def __init__(self, supervised: Supervised, folder: Path) -> None:
        self.supervised, self._folder = supervised, folder

    def start(self, *options: str, hang: float = 3.0, interval: float = 0.0) -> Supervised:
        url = f"http://127.0.0.1:{(port := free_port())}"
        words = [f"--health={url}/health", f"--hang={hang}", f"--interval={interval}", "--model=m", *options]
        return self.supervised.start(*words, engine=ENGINE, PORT=str(port))

    def become(self, *wishes: str) -> None:
        for name in wishes:
            (self._folder / name).touch()

    @property
    def asked(self) -> str:
        path = self._folder / "asked"
        return path.read_text() if path.exists() else ""

    @property
    def folders(self) -> list[Path]:
        return sorted(self.supervised.home.state.glob(f"{evidence.NAME}/*"))

    def restarted(self) -> bool:
        return self.supervised.lived(2) and bool(self.supervised.said["healthy"])


@pytest.fixture
def hanging(supervised: Supervised, tmp_path: Path) -> Hanging:
    return Hanging(supervised, tmp_path)


def test_an_engine_whose_counters_stand_still_is_restarted_and_its_evidence_kept(hanging: Hanging) -> None:
    hanging.become("busy", "still")
    server = hanging.start()
    first = server.lives[0]
    wait_until(hanging.restarted, 60)
    text = server.said
    assert (text["restarts"], text["in_a_row"], text["why"]) == (1, 1, "")
    assert re.fullmatch(r"hung \d+ s: 1 request running and no token since [\d:]{8}", text["last_exit"])
    assert not runs(first)
    assert re.search(r"m/0 hung \d+ s: .*; restart 1 of 5 in 0.05 s", server.told)
    (folder,) = hanging.folders
    assert folder.name == text["evidence"]
    event = json.loads((server.home.state / "history.jsonl").read_text().splitlines()[0])
    assert (event["event"], event["reason"], event["evidence"]) == ("restarting", text["last_exit"], str(folder))
    assert f"m/0 keeps evidence in evidence/{folder.name}\n" in server.told
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert text["last_exit"] in files["problem.txt"]
    assert "a line of the log" in files["log.txt"]
    process = files[f"process-{first}.txt"]
    assert "== status" in process
    assert "== wchan" in process
    assert "== stack" in process
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_stopped_engine_is_ended_too(hanging: Hanging) -> None:
    """SIGTERM does not end what SIGSTOP has stopped; not even its front end answers."""
    server = hanging.start()
    server.kill(signal.SIGSTOP)
    wait_until(hanging.restarted, 60)
    assert not runs(server.lives[0])
    assert "no reply to /metrics" in server.said["last_exit"]
    assert server.said["restarts"] == 1


@pytest.mark.parametrize("how", ["mute", "failing"])
def test_an_idle_engine_that_answers_no_probe_is_restarted(hanging: Hanging, how: str) -> None:
    (hanging.supervised.home.state / "secrets/env").write_text("VLLM_API_KEY='the key'\n")
    hanging.become(how)
    server = hanging.start(interval=0.5)
    wait_until(hanging.restarted, 60)
    assert "no token for a probe" in server.said["last_exit"]
    key, _, body = hanging.asked.splitlines()[0].rpartition(" {")
    assert key == "Bearer the key"
    assert '"max_tokens": 1' in body
    assert not any("the key" in process.command for process in proc.scan())


def test_an_answer_that_refuses_is_an_answer(hanging: Hanging) -> None:
    hanging.become("refusing")
    server = hanging.start(interval=0.5)
    wait_until(lambda: hanging.asked.count("\n") >= 9, 60)
    assert server.said["restarts"] == 0
    assert "hung" not in server.told


def test_an_engine_that_hangs_again_and_again_is_given_up_with_the_cause(hanging: Hanging) -> None:
    """A time of hanging is no time of health, by which the count would begin anew."""
    server = hanging.supervised
    hanging.become("busy", "still")
    url = f"http://127.0.0.1:{(port := free_port())}"
    always = ENGINE.replace("first = len(open(lives).readlines()) == 1", "first = True")
    server.start(f"--health={url}/health", "--hang=3", "--model=m", "--max=1", "--reset-after=2.9", engine=always,
                 PORT=str(port))  # fmt: skip
    assert server.process is not None
    assert server.process.wait(60) == 1
    assert re.fullmatch(r"hung \d+ s: .* since [\d:]{8}; gave up after 1 restart", server.said["why"])
    assert len(hanging.folders) == 2


def test_stop_wins_while_evidence_is_kept(hanging: Hanging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`py-spy` takes its time, and the stop comes in the middle of it."""
    spy = tmp_path / "bin/py-spy"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\ntouch {tmp_path}/spying\nsleep 60\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    hanging.become("busy", "still")
    server = hanging.start(hang=1)
    wait_until((tmp_path / "spying").exists, 60)
    assert server.said["state"] == "restarting"
    assert server.stop()["survivors"] == []
    assert len(server.lives) == 1
    assert server.left() == []


def test_only_the_newest_folders_are_kept(home: Home) -> None:
    for number in range(evidence.KEPT + 3):
        (home.state / evidence.NAME / f"20260101-00000{number}-m-0").mkdir(parents=True)
    hung = evidence.Hung(home.state, "m/0", "vllm_serve_m_0.sh", "hung 10 min: …")
    name = evidence.keep(hung, [])
    folders = sorted(path.name for path in (home.state / evidence.NAME).iterdir())
    assert len(folders) == evidence.KEPT
    assert folders[-1] == name
    assert re.fullmatch(r"\d{8}-\d{6}-m-0", name)
