from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory import document
from flagscale_deploy.inventory.document import Encrypted, Section, Unsafe


def parse_yaml(text: str, source: str) -> tuple[Any, list[Fault]]:
    return document.parse_yaml(text, source)


def parse_json(text: str, source: str) -> tuple[Any, list[Fault]]:
    return document.parse_json(text, source)


def test_a_section_knows_the_line_of_each_key_and_the_text_of_each_scalar() -> None:
    value, faults = parse_yaml("a: 010\nb:\n  c: on\n  d: [1]\n", "x.yaml")
    assert faults == []
    assert value == {"a": 8, "b": {"c": True, "d": [1]}}
    assert value.lines == {"a": 1, "b": 2}
    assert (value["b"].written, value["b"].lines) == ({"c": "on"}, {"c": 3, "d": 4})


def test_every_duplicate_key_is_a_fault_with_both_lines() -> None:
    _, faults = parse_yaml("a: 1\nb: {c: 1, c: 2}\na: 3\n", "x.yaml")
    assert {(fault.where, fault.problem[-len("is on line 0") :]) for fault in faults} == {
        ("x.yaml:2:11", "is on line 2"),
        ("x.yaml:3:1", "is on line 1"),
    }


def test_merged_keys_are_no_duplicates_wherever_the_anchor_stands() -> None:
    text = """
deep: {deeper: {base: &one {gpus: 1, port: 1}, two: &two {<<: *one, port: 2}}}
both: {<<: *two, gpus: 3}
list: {<<: [*one, *two], slots: 1}
"""
    value, faults = parse_yaml(text, "x.yaml")
    assert faults == []
    assert value["both"] == {"gpus": 3, "port": 2}
    assert value["list"] == {"gpus": 1, "port": 1, "slots": 1}


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("hosts:\n\t- a\n", "x.yaml:2:1", "cannot start any token"),
        ("a: [1\nb: 2\n", "x.yaml:2:2", "expected"),
        ("a: 1\n--- \nb: 2\n", "x.yaml:2:1", "single document"),
        ("a: *nowhere\n", "x.yaml:1:4", "undefined alias"),
        ("a: !custom 1\n", "x.yaml:1:4", "!custom"),
    ],
)
def test_a_syntax_error_has_line_and_column(text: str, where: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x.yaml")
    (fault,) = caught.value.faults
    assert fault.where == where
    assert problem in fault.problem + str(caught.value)


def test_an_unquoted_template_is_explained() -> None:
    _, faults = parse_yaml("a:\n  b: {{ name }}\n", "x.yaml")
    assert [(fault.where, fault.remedy) for fault in faults] == [("x.yaml:2:7", 'put "{{ … }}" in quotes')]


def test_the_tags_of_ansible_are_kept() -> None:
    value, _ = parse_yaml('a: !vault |\n  $ANSIBLE_VAULT;1.1\nb: !unsafe "{{ x }}"\nc: !unsafe [1, {d: e}]\n', "x.yaml")
    assert (type(value["a"]), type(value["b"])) == (Encrypted, Unsafe)
    assert value["c"] == [1, {"d": "e"}]
    assert type(value["c"][1]["d"]) is Unsafe


def test_json_may_hold_tabs_and_no_key_twice() -> None:
    value, faults = parse_json('{\n\t"a": {"b": 1, "b": 2}\n}', "x.json")
    assert isinstance(value["a"], Section)
    assert [fault.where for fault in faults] == ["x.json"]
    with pytest.raises(InputError, match=r"x.json:1:2"):
        parse_json("{,}", "x.json")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "inventories").glob("*.y*ml")), ids=lambda path: path.name
)
def test_both_parsers_read_an_inventory_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    quick = parse_yaml(text, "x")
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert places(quick) == places(parse_yaml(text, "x"))


def test_brackets_without_end_are_an_error_and_no_crash() -> None:
    with pytest.raises(InputError, match="nested more than 100 deep"):
        parse_yaml("[" * 100_000, "x")


def places(value: Any) -> Any:
    """Return a document with the lines it came from."""
    if isinstance(value, Section):
        return value.lines, value.written, {key: places(item) for key, item in value.items()}
    return [places(item) for item in value] if isinstance(value, (list, tuple)) else value
