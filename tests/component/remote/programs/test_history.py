"""A host's history: what launch, watch and stop add to it, and what is sent of it."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import history, kept, record
from flagscale_deploy.remote.programs import watch
from tests.component.remote.living import Home, birth
from tests.component.remote.programs.test_launch import launching

RUN = '{"schema": 1, "e": "\\u00e9"}'
ENGINE = {
    "name": "q/0", "model": "q", "driver": "gpu01", "port": 1, "endpoint": "", "local_url": "", "served_name": "q",
    "script": "engine.sh", "certificate": None, "hosts": ["gpu01"], "gpus": {}, "argv": ["vllm", "serve", "/m"],
}  # fmt: skip


def told(home: Home) -> list[Any]:
    return [event for message in home.run("history") for event in message["events"]]


def test_a_run_its_readiness_and_its_end_are_noted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(home) == []
    home.record({}, boot_id=record.boot_id())
    sent = {"operator": "ann@desk", "instances": [ENGINE]}
    began = time.monotonic()
    started = home.hear("launch", **launching(home, record=sent))[0]
    home.hear("launch", **launching(home, record=sent, script="other.sh", files={"scripts/other.sh": ("", "700")}))
    monkeypatch.setenv("HOME", str(home.path))
    deployed: Any = {**home.read_record(), "instances": [ENGINE]}
    args: Any = {"deployment": home.deployment, "host": home.host, **birth(started["pid"])}
    watch.note_in_history(deployed, args)
    failure = {"ago": 1.0, "cause": "no token", "remedy": "look"}
    home.run("stop", grace=1, failure=failure)
    run, ready, failed = told(home)
    assert (run["event"], run["run_id"], run["by"], run["argv"]) == ("run", "r1", "ann@desk", {"q/0": ENGINE["argv"]})
    assert (ready["event"], ready["server"], ready["run_id"]) == ("ready", "q/0", "r1")
    assert 0 <= ready["took"] <= time.monotonic() - began + 1 / 50, "since its process began, in ticks"
    assert (failed["event"], failed["reason"], failed["run_id"]) == ("failed", "no token", "r1")
    assert run["time"] <= ready["time"] <= failed["time"]
    home.run("stop", grace=1)
    assert len(told(home)) == 3, "what has been stopped is not stopped again"


def test_long_histories_come_in_several_messages_and_stay_bounded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.path))
    target: Any = {"deployment": home.deployment, "host": home.host}
    for number in range(150):
        history.note(target, "run", run_id=str(number), argv={"q": ["x" * 50_000]})
    messages = home.run("history")
    assert len(messages) > 1
    kept = [event["run_id"] for message in messages for event in message["events"]]
    assert kept == [str(number) for number in range(150)][-len(kept) :]
    assert (home.state / history.NAME).stat().st_size < history.BYTES + history.LINES
    history.note(target, "run", run_id="long", argv={"q": ["x" * history.LONGEST]})
    assert "argv" not in told(home)[-1]


@pytest.mark.parametrize("line", ["", "x", "[]", "{}", json.dumps({"schema": 1, "event": "run"})])
def test_lines_that_are_no_events_are_passed_over(home: Home, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("HOME", str(home.path))
    history.note({"deployment": home.deployment, "host": home.host}, "stopped")
    with (home.state / history.NAME).open("a") as file:
        file.write(line + "\n")
    assert [event["event"] for event in told(home)] == ["stopped"]


def test_the_newest_runs_are_kept_and_sent_as_they_were_written(home: Home) -> None:
    home.record({}, boot_id=record.boot_id())
    folder = home.state / kept.FOLDER
    folder.mkdir()
    for number in range(30):
        (folder / f"2025{number:02d}-a.json").write_text(str(number))
    files = {kept.path_of("r1"): (RUN, "600"), "scripts/engine.sh": ("sleep 60", "700")}
    home.hear("launch", **launching(home, files=files))
    assert len(list(folder.iterdir())) == kept.MOST
    assert stat.S_IMODE((folder / "r1.json").stat().st_mode) == 0o600
    (reply,) = home.run("history")
    assert reply["kept"]["r1"] == hashlib.sha256(RUN.encode()).hexdigest()
    assert sorted(reply["kept"])[0] == "202511-a"
    assert home.run("history", run_id="r1") == [{"events": [], "run": RUN}]
    home.run("stop", grace=1)
    assert (folder / "r1.json").exists(), "it goes with `cleanup`"


WORDS = (b"No such file", b"larger than", b"cannot be used as a name")


@pytest.mark.parametrize("run_id", ["r9", "../record", "..", "a/b", "large"])
def test_a_run_that_is_not_kept_is_an_error(home: Home, run_id: str) -> None:
    home.record({})
    (home.state / kept.FOLDER).mkdir()
    (home.state / kept.FOLDER / "large.json").write_text(" " * (kept.LONGEST + 1))
    with home.open("history", run_id=run_id) as program:
        output = program.communicate(timeout=30)[0]
    assert (program.returncode, any(words in output for words in WORDS)) == (1, True), output
    (reply,) = home.run("history")
    assert reply["kept"] == {}


PROBING: dict[str, Any] = {"venv": None, "before_start": None, "env": {}, "models": [], "tls_files": []}


@pytest.mark.parametrize(
    ("changed", "hosts", "sent"),
    [
        ({}, ["gpu01", "gpu02"], True),
        ({"head": "gpu02"}, ["gpu01", "gpu02"], False),
        ({"head": "gpu02"}, ["gpu01", "gpu03"], True),
        ({"head": "gpu09", "hosts": ["gpu02", "gpu01"]}, ["gpu01"], True),
        ({"stopped_at": 1.0}, ["gpu01"], False),
        ({"boot_id": "an earlier one"}, ["gpu01"], False),
        ({"run_id": "another"}, ["gpu01"], False),
        ({"run_id": "r0", "configuration": "r1"}, ["gpu01"], True),
        ({"configuration": "an update that is not kept"}, ["gpu01"], False),
        ({"hosts": 7}, ["gpu01"], False),
        ({}, [], False),
    ],
)
def test_the_probe_sends_the_run_of_what_was_not_stopped_once(
    home: Home, changed: dict[str, Any], hosts: list[str], sent: bool
) -> None:
    content: dict[str, Any] = {"head": "gpu01", "hosts": ["gpu01", "gpu02"], "boot_id": record.boot_id()}
    home.record({}, **{**content, **changed})
    (home.state / kept.FOLDER).mkdir()
    (home.state / kept.path_of("r1")).write_text(RUN)
    (reply,) = home.run("probe", **PROBING, deployment=home.deployment, hosts=hosts)
    assert reply["kept"] == (RUN if sent else "")
    (reply,) = home.run("probe", **PROBING)
    assert reply["kept"] == ""
