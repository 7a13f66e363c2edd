"""Every file that a program reads holds what it should not: the program says so or passes it over, in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.component.remote.living import Home, messages

CONTENTS: dict[str, str] = {
    "deep": '{"run_id": ' + "[" * 100_000,
    "digits": '{"pid": 9, "started_at": 9}'.replace("9", "9" * 5000),
    "not-finite": '{"started_at": NaN, "stopped_at": -Infinity, "heard": 1e999, "restarts": 1e999}',
    "list": "[]",
    "text": '"run"',
    "half": '{"run_id": "r1", "proc',
    "wrong-types": '{"run_id": [], "processes": {"a": 1}, "instances": 3, "ports": "all", "gpus": {}, "before": [], '
    '"ray_temp_dir": 7, "segments": [1], "started_at": "now", "boot_id": {}, "pid": "1/../..", "heard": []}',
    "wrong-failure": '{"run_id": "r1", "stopped_at": 1.0, "failure": {"at": [], "cause": {}, "remedy": 1}}',
    "wrong-below": '{"run_id": "r1", "processes": [{"pid": "x", "role": 1}], "instances": [null], "ports": {"a": []}}',
    "far-times": '{"run_id": "r1", "started_at": 1e300, "gpus": [0], "ports": {"a": 99999999999999999999}}',
    "surrogates": '{"run_id": "\\ud800", "deployment": "\\udfff", "who": "\\ud800"}',
    "bytes": "\udcff\udcfe\0",
    "empty": "",
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def content(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))

    return write


FORMS: dict[str, Callable[[Path], None]] = {
    **{name: content(text) for name, text in CONTENTS.items()},
    "fifo": fifo,
    "directory": directory,
    "endless-link": link,
    "large": large,
}

OTHERS = (
    "lock",
    "unlocked.json",
    "restart/r1/vllm_serve.json",
    "temporary",
    "app/exit",
    "logs/vllm_serve.log",
    "runs/r1.json",
    "before",
    "before.new",
)
PROBING: dict[str, Any] = {"venv": None, "before_start": None, "env": {}, "models": [], "tls_files": []}
PROGRAMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("probe", PROBING),
    ("inspect", {"ask": False}),
    ("follow", {"tail": 5, "follow": False}),
    ("reserve", {"run_id": "r2", "record": {"gpus": [0], "ports": {"m/0": 1}}, "exclusive": ["gpus", "ports"]}),
    ("reserve", {"run_id": "r2", "release": True}),
    ("history", {}),
    ("unlock", {"force": False, "gone": 45.0, "by": {}}),
    ("stop", {"grace": 0.1}),
    ("cleanup", {}),
)
SECONDS = 25.0
SAID = ("IsADirectoryError", "UnusableError")
"""Where something has the name of a file that has to be written or locked, that is an error, in words."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [("record.json",), OTHERS], ids=("record", "others"))
def test_whatever_the_files_of_the_state_are_no_program_hangs_or_breaks(
    home: Home, names: tuple[str, ...], form: str
) -> None:
    home.record()
    for path in (home.state / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        FORMS["text" if form == "large" and path.suffix == ".log" else form](path)
    for program, args in PROGRAMS:
        began = time.monotonic()
        with home.open(program, **args) as running:
            output = running.communicate(timeout=30)[0]
        errors = [reply["error"] for reply in messages(output) if "error" in reply]
        assert all(error.startswith(SAID) for error in errors), (program, errors)
        assert time.monotonic() - began < SECONDS, program
