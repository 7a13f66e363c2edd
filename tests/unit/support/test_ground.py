"""The ground that every room stands on: errors, quoting, deadlines, events, facts."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy import errors
from flagscale_deploy.errors import DeployError, Fault, InputError, UnreachableError
from flagscale_deploy.events import Event, Journal, JsonLines, stage_seconds
from flagscale_deploy.facts.model import Facts, Gpu, GpuProcess, Interface, ListeningPort
from flagscale_deploy.support import shell
from flagscale_deploy.support.deadline import Deadline

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def test_every_error_says_its_exit_status_in_the_modules_table() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DeployError)]
    assert len(kinds) > 10
    table = {name: int(code) for name, code in re.findall(r"(\w+) +(\d+)", errors.__doc__ or "")}
    assert len(table) >= 10
    assert {kind.__name__: kind.exit_code for kind in kinds if kind.__name__ in table} == table


def test_faults_are_reported_together_with_place_and_remedy() -> None:
    error = InputError([Fault("a.yaml: x", "is wrong", "make it right"), Fault("gpu01", "is down")])
    assert str(error) == "a.yaml: x: is wrong\n    → make it right\ngpu01: is down"
    assert InputError.at("a", "b", "c").faults == (Fault("a", "b", "c"),)


def test_a_hosts_error_names_it() -> None:
    error = UnreachableError("gpu01", "no answer", "look at it")
    assert (error.host, error.problem, error.remedy) == ("gpu01", "no answer", "look at it")
    assert str(error) == "gpu01: no answer\n    → look at it"


@settings(max_examples=200)
@given(st.lists(TEXT, min_size=1))
def test_words_come_back_as_they_were(words: list[str]) -> None:
    assert shlex.split(shell.join(words)) == words


@settings(max_examples=10, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=20))
def test_bash_reads_assignments_as_they_were(values: list[str]) -> None:
    text = shell.assignments((f"V{at}", value) for at, value in enumerate(values))
    names = " ".join(f'"$V{at}"' for at in range(len(values)))
    output = subprocess.run(
        ["bash", "-c", f'set -a; . /dev/stdin; printf "%s\\0" {names}'],
        input=text.encode(),
        capture_output=True,
        check=True,
    ).stdout
    assert output.decode().split("\0")[:-1] == values


def test_quoting() -> None:
    assert shell.quote(7) == "7"
    assert shell.quote("") == "''"
    assert shell.quote(shell.Raw("a && b")) == "a && b"
    with pytest.raises(ValueError, match="NUL"):
        shell.quote("a\0b")


def test_a_deadline_counts_down_and_never_below_nothing() -> None:
    now = 100.0
    deadline = Deadline(5, lambda: now)
    assert (deadline.elapsed, deadline.remaining, deadline.expired) == (0, 5, False)
    now = 104.0
    assert (deadline.elapsed, deadline.remaining, deadline.expired) == (4, 1, False)
    now = 105.0
    assert (deadline.remaining, deadline.expired) == (0, True)
    now = 200.0
    assert (deadline.elapsed, deadline.remaining) == (100, 0)


def test_a_journal_hands_each_event_to_all_one_at_a_time() -> None:
    busy = threading.Lock()
    heard: list[str] = []

    def sink(event: Event) -> None:
        assert busy.acquire(blocking=False)
        heard.append(event.text)
        busy.release()

    journal = Journal([sink])
    journal.add(lambda event: heard.append(event.text))
    threads = [threading.Thread(target=journal, args=(Event("s", "note", text=str(at)),)) for at in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(heard) == sorted([str(at) for at in range(50)] * 2)


def test_events_are_written_as_json_lines_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with JsonLines(path, lambda text: text.replace("s3cret", "[REDACTED]")) as lines:
        lines(Event("serve", "progress", "gpu01", 'ünï\n"s3cret"', 50.0, at=1.0))
        lines(Event("serve", "done", "gpu01", elapsed=2.0, at=2.0))
        written = path.read_text(encoding="utf-8").splitlines()  # at once: a crash loses nothing
    assert [json.loads(line) for line in written] == [
        {
            "stage": "serve",
            "state": "progress",
            "host": "gpu01",
            "text": 'ünï\\n"[REDACTED]"',
            "percent": 50.0,
            "at": 1.0,
        },
        {"stage": "serve", "state": "done", "host": "gpu01", "text": "", "elapsed": 2.0, "at": 2.0},
    ]


def test_events_that_a_full_disk_does_not_take_end_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path, problem in (
        (Path("/dev/full"), "No space left on device"),
        (tmp_path / "no/where", "No such file"),
        (tmp_path / "pipe", "No such device or address"),
        (tmp_path / "link", "Too many levels of symbolic links"),
    ):
        with JsonLines(path, str) as lines:
            lines(Event("serve", "done"))
            lines(Event("serve", "done"))
            assert problem in lines.problem
        lines(Event("run", "note"))  # what comes when it is closed is not written


def test_a_stage_lasts_from_its_first_event_to_its_last() -> None:
    events = [
        Event("a", "running", at=1.0),
        Event("b", "running", at=2.0),
        Event("a", "done", at=4.0),
        Event("b", "done", at=9.0),
    ]
    assert stage_seconds(events) == {"a": 3.0, "b": 7.0}
    assert stage_seconds([]) == {}


FACTS = Facts(
    user="u",
    gpus=(Gpu(0, "GPU-1", "H100", 80, 10, (GpuProcess(7, 10, "u", "python"),)), Gpu(1)),
    interfaces=(Interface("eth0", ("10.0.0.1", "fd00::1"), 9000),),
    ports=(ListeningPort(22, "0.0.0.0", 1, "sshd"),),
    deployments=({"deployment": "qwen", "gpus": [0]},),
)


def test_facts_are_read_from_json_as_they_were() -> None:
    assert Facts.parse(json.loads(json.dumps(asdict(FACTS)))) == FACTS
    assert FACTS.interface_of("fd00::1") == "eth0"
    assert FACTS.interface_of("10.9.9.9") is None


def test_a_newer_probe_may_say_more_and_an_older_one_less() -> None:
    output = json.loads(json.dumps(asdict(FACTS)))
    output["of_tomorrow"] = 1
    output["gpus"][0]["of_tomorrow"] = output["gpus"][0]["processes"][0]["of_tomorrow"] = 1
    output["interfaces"][0]["of_tomorrow"] = output["ports"][0]["of_tomorrow"] = 1
    assert Facts.parse(output) == FACTS
    nothing: Any = {}
    assert Facts.parse(nothing) == Facts()
