"""One long text behind many aliases, and long keys: a small file is read soon, and learned once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flagscale_deploy.cli.project_file import read_project_file
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.learn_secrets import learn_value, learning

SECONDS = 20.0
"""Processor time; below 2 s were seen, and minutes before."""
TEXT = "a=" * 75_000
LIST = f"&a '{TEXT}'\n    l:\n" + "    - *a\n" * 1000
KEYS = f"&a '{TEXT}'\n" + "".join(f"    A{number}: *a\n" for number in range(1000))
MODEL = "model_args: {m: {model: a/b}}\n"


def serve(path: Path) -> None:
    load_spec(path, environ={})


READERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "flags": ("c.yaml", "model_args:\n  m:\n    model: a/b\n    x: TEXT", serve),
    "variables": ("c.yaml", f"{MODEL}experiment:\n  envs:\n    A: TEXT", serve),
    "inventory": ("h.yaml", "all:\n  hosts: {gpu01: {}}\n  vars:\n    a: TEXT", load_inventory),
    "short inventory": ("h.yaml", "hosts: [gpu01]\ndefaults:\n  env:\n    a: TEXT", load_inventory),
    "project file": ("flagscale-deploy.yaml", "x:\n  y:\n    a: TEXT", lambda _path: read_project_file()),
}


@pytest.mark.parametrize("aliases", [LIST, KEYS], ids=["list", "keys"])
@pytest.mark.parametrize("reader", READERS)
def test_long_texts_behind_aliases_are_refused_soon(
    tmp_path: Path, reader: str, aliases: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, text, read = READERS[reader]
    (tmp_path / name).write_text(text.replace("TEXT", aliases), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(InputError, match="aliases stand for more than 8,388,608 characters"):
        read(tmp_path / name)
    assert time.process_time() - began < SECONDS


def test_one_text_is_learned_once() -> None:
    began = time.process_time()
    with learning(Redactor()):
        learn_value({"x": [TEXT] * 2000})
    assert time.process_time() - began < SECONDS


def test_a_long_key_costs_no_more_for_each_value_below_it() -> None:
    redactor = Redactor()
    began = time.process_time()
    with learning(redactor):
        learn_value({"x" * 1_000_000: dict.fromkeys(map(str, range(50_000)), "a"), "y" * 900 + "_token": "abcdefgh"})
    assert time.process_time() - began < SECONDS
    assert redactor.redact("abcdefgh") == "[REDACTED]"
