"""The cache of environments: built once, whole or not at all."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.environments import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path) -> None:
    (path / "built").write_text("whole")


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} is built again")


def test_what_is_there_is_not_built_again() -> None:
    path = cache.entry("thing-1", write)
    assert cache.entry("thing-1", refuse) == path
    assert (path / "built").read_text() == "whole"


def test_what_an_interrupted_build_left_is_thrown_away(own_cache: Path) -> None:
    def fail_half_way(path: Path) -> None:
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.entry("thing-1", fail_half_way)
    assert (own_cache / "thing-1" / "half").exists()
    path = cache.entry("thing-1", write)
    assert sorted(entry.name for entry in path.iterdir()) == [cache.COMPLETE, "built"]


def test_two_that_ask_at_the_same_time_get_one_build() -> None:
    began, may_end = threading.Event(), threading.Event()
    builds = []

    def build(path: Path) -> None:
        builds.append(path)
        began.set()
        may_end.wait(10)
        write(path)

    first = threading.Thread(target=cache.entry, args=("thing-1", build))
    second = threading.Thread(target=cache.entry, args=("thing-1", build))
    first.start()
    began.wait(10)
    second.start()
    may_end.set()
    first.join(10)
    second.join(10)
    assert len(builds) == 1


def test_a_new_entry_drives_out_those_of_its_kind_that_nobody_uses() -> None:
    old, used, other = (cache.entry(name, write) for name in ("thing-1", "thing-2", "other-1"))
    long_ago = time.time() - (cache.UNUSED_DAYS + 1) * 86400
    for path in (old, other):
        os.utime(path / cache.COMPLETE, (long_ago, long_ago))
    cache.entry("thing-3", write)
    assert [path.exists() for path in (old, used, other)] == [False, True, True]


def test_a_recipe_changes_with_every_part_and_with_where_parts_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ab")
    files = [tmp_path / "file"]
    assert cache.recipe(files, "c") == cache.recipe(files, "c")
    assert (
        len({cache.recipe(files), cache.recipe(files, "c"), cache.recipe([], "a", "bc"), cache.recipe([], "abc")}) == 4
    )
