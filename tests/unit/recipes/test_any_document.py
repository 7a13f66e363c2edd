"""Recipes with anything in any place: each is read, or refused with what is wrong and where.

Each value stands in every third place, and in each place stands every third value; `FSD_FAULTS=all` tries all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.recipes.command import read_command
from flagscale_deploy.recipes.recipe import read_recipe, serve_yaml
from flagscale_deploy.recipes.variables import read_variables

OURS = Path(__file__).parent / "library"
WHOLE = os.environ.get("FSD_FAULTS") == "all"
WORDS = ("", "x", "--x", "$X", "\0", "x" * 30_000)
HOSTILE: tuple[object, ...] = (None, True, -1, 7, 1e400, [], [[]], {}, {"a": []}, *WORDS)


def paths(value: object, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of everything in a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*above, key)
        yield from paths(child, (*above, key))


@pytest.mark.parametrize("file", sorted(OURS.rglob("strategies/*.json")), ids=lambda path: path.stem)
def test_a_document_with_anything_in_any_place_is_read_or_refused(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    faults: list[Fault] = []
    for number, (*above, last) in enumerate(paths(json.loads(text))):
        for value in HOSTILE if WHOLE else HOSTILE[number % 3 :: 3]:
            mutant = json.loads(text)
            reduce(getitem, above, mutant)[last] = value
            try:
                load_spec(parse_document(serve_yaml(read_recipe(mutant, "r.json", "h200", file.stem)), "r"), environ={})
            except InputError as error:
                faults += error.faults
    assert [fault for fault in faults if not (fault.where and fault.problem) or len(fault.problem) > 400] == []
    assert len(faults) > 30


@pytest.mark.parametrize("depth", [150, 400, 900, 990, 5000])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_no_word_of_a_command_is_nested_too_deeply(depth: int, opening: str, closing: str) -> None:
    text = f'{{"a":{opening * depth}1{closing * depth}}}'
    with pytest.raises(InputError, match=r"nested more than|expected a JSON object|characters"):
        read_command(["vllm", "serve", "a/b", "--hf-overrides", text], "r: argv")


def test_all_words_of_a_command_together_are_bounded() -> None:
    words = ["vllm", "serve", "a/b", *(f"--x{number}={'y' * 19_000}" for number in range(11))]
    with pytest.raises(InputError, match="more than 200,000 characters"):
        read_command(words, "r: argv")


def test_the_place_of_a_fault_is_short_whatever_a_name_is() -> None:
    with pytest.raises(InputError) as caught:
        read_variables({"X" * 1_000_000: "1"}, "r: env")
    assert len(str(caught.value)) < 500
