from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.source import WrittenFloat, dump_document, parse_word, parse_yaml, read_yaml
from flagscale_deploy.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "0,1,2,3",
        "12:30",
        "2026-11-22",
        "017",
        "0x1f",
        "1_000",
        ".inf",
        "1e",
        "=",
        "<<",
        "9" * 5000,
    ],
)
def test_words_that_other_yamls_turn_into_something_stay_text(text: str) -> None:
    assert parse_word(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("7", 7),
        ("-3", -3),
        ("0", 0),
        ("0.90", 0.9),
        ("1e-5", 1e-5),
        ("-.5", -0.5),
    ],
)
def test_words_with_a_meaning_have_it(text: str, value: Any) -> None:
    value = parse_word(text)
    assert value == value
    assert isinstance(value, type(value))


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "0.90", "1.10", "3.", ".5", "-0.0"])
def test_numbers_print_as_they_were_written(text: str) -> None:
    for number in (parse_word(text), pickle.loads(pickle.dumps(parse_word(text))), copy.deepcopy(parse_word(text))):
        assert str(number) == f"{number}" == text
    assert json.loads(json.dumps(parse_word(text))) == float(text)


def test_keys_are_always_text() -> None:
    assert parse_yaml("1: a\ntrue: b\n10.0.0.1: c\n1.50: d", "f") == {
        "1": "a",
        "true": "b",
        "10.0.0.1": "c",
        "1.50": "d",
    }


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a, {z: 4}]}"
    assert parse_yaml(text, "f") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2, "z": 4}}


def test_json_is_yaml_down_to_its_escapes() -> None:
    assert parse_yaml('{"a": "\\ud83d\\ude00 \\u00fc"}', "f") == {"a": "😀 ü"}


def test_quoted_numbers_are_text() -> None:
    assert parse_yaml("['1', \"0.9\", !!str 5]", "f") == ["1", "0.9", "5"]


FAULTY = {
    "duplicate key": (
        "a: 1\nb:\n  c: 1\n  d: 1\n  c: 2\n",
        "f.yaml:5:3: found the key 'c' twice in one mapping; the first is on line 3",
    ),
    "two duplicate keys": (
        "a: 1\n1: 2\na: 3\n'1': 4\n",
        "f.yaml:3:1: found the key 'a' twice in one mapping; the first is on line 1\n    → keep one of the two\n"
        "f.yaml:4:1: found the key '1' twice in one mapping; the first is on line 2",
    ),
    "open bracket": ("a: [1,\nb: 2", "f.yaml:2:"),
    "colon in a value": ("a: b: c", "f.yaml:1:5: this is not YAML: mapping values are not allowed here"),
    "tab": ("a:\n\tb: 1", "f.yaml:2:1: this is not YAML: found character '\\t'"),
    "itself in itself": ("a: &x [*x]", "f.yaml:1:4: "),
    "Python object": ("a: !!python/object:os.system x", "f.yaml:1:4: could not determine"),
    "wrong tag": ("a: !!int x", "f.yaml:1:4: 'x' is not of type int"),
    "two documents": ("a: 1\n---\nb: 2\n", "f.yaml:2:1: "),
    "list as key": ("? [a]\n: 1", "f.yaml:1:3: a key must be a single word"),
    "NUL": ('a: ["\\0"]', "f.yaml:1:5: a NUL byte"),
    "half a character": ('a: "\\ud83d"', "f.yaml:1:4: half a character"),
    "control character": ("a: \x01", "f.yaml:1:4: this is not YAML: special characters"),
    "far too deep": ("[" * 3000, "f.yaml:1:34: is nested more than 32 deep"),
    "too deep": ("[" * 100 + "]" * 100, "f.yaml:1:34: is nested more than 32 deep"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTY.values(), ids=FAULTY.keys())
def test_what_is_no_yaml_is_named_with_line_and_column(text: str, problem: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "f.yaml")
    assert str(raised.value).startswith(problem)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    for name, problem in (
        ("none.yaml", "does not exist"),
        ("", "is a folder"),
        ("latin.yaml", "is not text in UTF-8"),
    ):
        with pytest.raises(InputError, match=problem):
            read_yaml(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes("\ufeffa: 1.50".encode())
    value = read_yaml(tmp_path / "bom.yaml").value
    assert value == {"a": 1.5}
    assert isinstance(value["a"], WrittenFloat)


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028 b", "\u2029", "a\nb", "a\u00a0b", "模型"])
def test_a_text_is_written_as_it_is_read_back(text: str) -> None:
    document = parse_yaml(dump_document({"a": [text, {text: 1}]}), "c.yaml")
    assert document == {"a": [text, {text: 1}]}
