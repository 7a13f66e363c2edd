"""JSON that somebody else wrote: bombs and wrong shapes are errors of the file, in words."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote import orders, wire
from flagscale_deploy.remote.system import files, json_files


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a":' * 100_000, "it is nested too deeply"),
        ('{"a": %s}' % ("9" * 5000), "a number of 5000 digits"),
        ("[]", "expected an object, found list"),
        ("nul", "Expecting value"),
        ("", "Expecting value"),
        (b"\xff\xfe\x00", "codec can't decode"),
    ],
)
def test_what_is_no_object_is_an_error_in_words(text: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        json_files.parse_object(text)


def test_numbers_that_are_not_finite_are_none() -> None:
    """Mamba2's config.json has `"time_step_limit": [0.0, Infinity]`."""
    assert json_files.parse_object('{"a": [NaN, Infinity, -Infinity, 1e999, 0.5]}') == {"a": [None] * 4 + [0.5]}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": 1, "more": []}, ""),
        ({}, ""),
        ({"a": "1"}, "a: expected int, found str"),
        ({"a": True}, "a: expected int, found bool"),
        ({"b": [{"c": None}, {"c": "x"}]}, ""),
        ({"b": [{"c": "x"}, {"c": 1}]}, "b.1.c: expected str, found int"),
        ({"b": {}}, "b: expected list, found dict"),
        ({"d": {"any": 1, "other": "x"}}, "d.other: expected int, found str"),
    ],
)
def test_a_wrong_shape_is_told_with_its_place(value: Mapping[str, Any], problem: str) -> None:
    shape = {"a": int, "b": [{"c": (str, type(None))}], "d": {"": int}}
    assert json_files.mismatch(value, shape) == problem


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "device", "large"])
def test_only_regular_files_are_read_and_only_so_much(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(__file__)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.write_bytes(b"x" * 1001)
        assert files.read_start(str(path), 10) == b"x" * 10
    with pytest.raises(OSError):
        files.read_whole(str(path), 1000)


def test_a_message_that_is_too_long_or_no_json_is_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="the reply has"):
        wire.send({"lines": ["x" * wire.LONGEST_MESSAGE]})
    with pytest.raises(ValueError, match="JSON"):
        wire.send({"figure": float("nan")})
    assert capsys.readouterr().out == ""


def test_an_order_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "LONGEST_ORDER", 100)
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps({"a": "x" * 50}).encode() + b"\n" + b"y" * 101))
    )
    reader: orders.OrderReader[dict[str, str]] = orders.OrderReader()
    reader.receive()
    assert reader.next() == {"a": "x" * 50}
    with pytest.raises(ValueError, match="an order of more than"):
        reader.next()
