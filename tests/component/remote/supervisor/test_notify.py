"""What becomes of restarts is told to the user's command and kept in a file, and keeps no supervisor waiting."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import history
from flagscale_deploy.remote.messages.status import RestartEvent
from flagscale_deploy.remote.supervisor import notify
from tests.component.remote.living import runs, wait_until
from tests.component.remote.supervisor.supervised import Supervised

TELLS = """read -r event; printf '%s\\n' "$event" >> {folder}/heard"""
EVENT: RestartEvent = {
    "schema": 1, "deployment": "d", "server": "m/0", "host": "gpu01", "event": "restarting", "reason": "it died",
    "attempt": 1, "max": 5, "evidence": "", "time": 1.0,
}  # fmt: skip


def script(supervised: Supervised, text: str) -> None:
    (supervised.home.state / "scripts/notify.sh").write_text(text.format(folder=supervised.folder))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_restarts_are_told_and_kept(supervised: Supervised) -> None:
    script(supervised, TELLS)
    supervised.start("--notify=1")
    supervised.kill()
    heard = supervised.folder / "heard"
    wait_until(lambda: len(lines(heard)) == 2)
    first, second = sorted(lines(heard), key=lambda event: event["time"])
    assert [first["event"], second["event"]] == ["restarting", "restored"]
    where = {"schema": 1, "deployment": supervised.home.deployment, "server": "m/0", "host": "gpu01", "evidence": ""}
    for event in (first, second):
        assert event.items() >= {**where, "attempt": 1, "max": 5}.items()
        assert "was ended by SIGKILL" in event["reason"]
    kept = supervised.home.state / "history.jsonl"
    assert lines(kept) == [first, second]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_reboot_is_told_as_a_restart_once(supervised: Supervised) -> None:
    script(supervised, TELLS)
    heard = supervised.folder / "heard"

    def go_down() -> None:
        os.kill(supervised.pid, signal.SIGKILL)
        supervised.kill()
        supervised.wait()

    supervised.start("--notify=1")
    go_down()
    supervised.files.write({**supervised.said, "boot_id": "an-earlier-boot"})
    supervised.start("--notify=1")
    wait_until(lambda: len(lines(heard)) == 2)
    go_down()
    supervised.start("--notify=1")  # as `boot.sh` tries again
    wait_until(partial(supervised.lived, 3))
    first, second = sorted(lines(heard), key=lambda event: event["time"])
    assert [first["event"], second["event"]] == ["restarting", "restored"]
    for event in (first, second):
        assert (event["reason"], event["attempt"]) == ("its host was rebooted", 1)
    assert lines(supervised.home.state / "history.jsonl") == [first, second]
    assert supervised.said["restarts"] == 1


def test_a_server_that_is_given_up_is_told_with_the_reason(supervised: Supervised) -> None:
    script(supervised, TELLS)
    supervised.start("--notify=1", "--max=1", LIVES="1")
    supervised.kill()
    assert supervised.wait() == 1
    heard = supervised.folder / "heard"
    wait_until(lambda: any(event["event"] == "gave up" for event in lines(heard)))
    (event,) = [event for event in lines(heard) if event["event"] == "gave up"]
    assert event["reason"] == supervised.said["why"]
    assert "gave up after 1 restart" in event["reason"]


def test_a_command_that_hangs_keeps_nobody_waiting_and_is_not_the_servers(supervised: Supervised) -> None:
    """It outlives the next restart, which ends all else that the server has left."""
    script(supervised, "echo $$ >> {folder}/pids; exec sleep 600")
    supervised.start("--notify=1")
    for life in (2, 3):
        supervised.kill()
        wait_until(partial(supervised.lived, life))
        wait_until(lambda: supervised.said["state"] == "running")
    wait_until((supervised.folder / "pids").exists)
    wait_until(lambda: bool((supervised.folder / "pids").read_text()))
    first = int((supervised.folder / "pids").read_text().split()[0])
    if runs(first):  # unless all of this has taken ten seconds
        assert supervised.stop()["survivors"] == []
    wait_until(lambda: not runs(first))


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.5)
    path = tmp_path / "notify.sh"
    path.write_text(f"sleep 600 & echo $! > {tmp_path}/child; wait")
    assert notify.run(path, b"{}") == "did not end within 0.5 s, and was killed"
    wait_until(lambda: not runs(int((tmp_path / "child").read_text())))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo no network >&2; exit 3", "deploy.restart.notify ended with exit status 3: no network"),
        (None, "deploy.restart.notify ended with exit status 127"),
    ],
)
def test_a_command_that_fails_is_logged(supervised: Supervised, text: str | None, problem: str) -> None:
    if text is not None:
        script(supervised, text)
    supervised.start("--notify=1")
    supervised.kill()
    wait_until(lambda: f"m/0 {problem}" in supervised.told)
    wait_until(lambda: supervised.lived(2))


def test_a_history_that_cannot_be_written_is_done_without(supervised: Supervised) -> None:
    (supervised.home.state / "history.lock").mkdir()
    supervised.start()
    supervised.kill()
    wait_until(lambda: supervised.lived(2))
    assert not (supervised.home.state / "history.jsonl").exists()


def test_the_history_has_the_newest_thousand(tmp_path: Path) -> None:
    for attempt in range(3):
        history.append(tmp_path, {**EVENT, "attempt": attempt})
    path = tmp_path / "history.jsonl"
    assert [event["attempt"] for event in lines(path)] == [0, 1, 2]
    path.write_text("".join(json.dumps({**EVENT, "attempt": attempt}) + "\n" for attempt in range(1000)))
    history.append(tmp_path, {**EVENT, "attempt": 1000})
    assert [event["attempt"] for event in lines(path)] == list(range(1, 1001))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_bytes(b"x" * (9 << 20)), os.mkdir])
def test_what_is_no_history_is_replaced_or_reported(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "history.jsonl"
    make(path)
    if path.is_dir():
        with pytest.raises(OSError, match=r"history\.jsonl"):
            history.append(tmp_path, EVENT)
        shutil.rmtree(path)
    else:
        history.append(tmp_path, EVENT)
        assert lines(path) == [EVENT]
