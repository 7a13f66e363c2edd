"""Folders in which anything may lie are read in bounded time, and what is wrong with them is an error of input."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.support.folders import MOST_FILES, files_below


@pytest.fixture(autouse=True)
def removed(tmp_path: Path) -> Iterator[None]:
    """Remove the folders with rm: pytest's own removal goes down by recursion, and fails in a later session."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def everything(_path: Path) -> bool:
    return False


def deep(folder: Path, name: str = "d", levels: int = 1100) -> None:
    """Make folders deeper than Python's recursion goes; with long names deeper than a path can be written."""
    here = Path.cwd()
    os.chdir(folder)
    for _ in range(levels):
        os.mkdir(name)
        os.chdir(name)
    os.chdir(here)


def circles(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / name).symlink_to(".")


def circle_below(folder: Path) -> None:
    (folder / "d").mkdir()
    for name in ("a", "b", "c"):
        (folder / "d" / name).symlink_to("..")


def broken(folder: Path) -> None:
    (folder / "nothing").symlink_to("nosuch")
    (folder / "itself").symlink_to("itself")
    os.mkfifo(folder / "pipe")


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "links to itself": (circles, ""),
    "links upwards": (circle_below, ""),
    "links to nothing, and a pipe": (broken, ""),
    "levels": (deep, "is more than 50 levels deep"),
    "levels of long names": (lambda folder: deep(folder, "d" * 250), ""),
}


@pytest.mark.parametrize(("make", "problem"), KINDS.values(), ids=KINDS.keys())
def test_a_folder_is_read_soon_whatever_lies_in_it(make: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    make(tmp_path)
    began = time.process_time()
    if problem:
        with pytest.raises(InputError, match=problem):
            list(files_below(tmp_path, everything))
    else:
        assert list(files_below(tmp_path, everything)) == [tmp_path / "file"]
    assert time.process_time() - began < 5


@pytest.mark.parametrize(("make", "problem"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("kind", ["group_vars/all", "host_vars/gpu01"])
def test_variables_beside_an_inventory_are_read_soon(
    kind: str, make: Callable[[Path], None], problem: str, tmp_path: Path
) -> None:
    """Nobody names these folders: they come with the repository that the inventory is in."""
    (tmp_path / kind).mkdir(parents=True)
    (tmp_path / kind / "vars.yml").write_text("gpus: 3\n")
    (tmp_path / "hosts.yaml").write_text("all: {hosts: {gpu01: {}}}\n")
    make(tmp_path / kind)
    if problem:
        with pytest.raises(InputError, match=problem):
            load_inventory(tmp_path / "hosts.yaml")
    else:
        assert load_inventory(tmp_path / "hosts.yaml").hosts[0].gpus == 3


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 1):
        os.close(os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY))
    with pytest.raises(InputError, match="holds more than 20,000 files"):
        list(files_below(tmp_path, everything))
