"""A host's history: what launch, watch and stop add to it, and what is sent of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import history, record
from flagscale_deploy.remote.programs import watch
from tests.component.remote.living import Home, birth
from tests.component.remote.programs.test_launch import launching

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
