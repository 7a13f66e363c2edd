"""Find the files of a folder that may hold anything: links in circles, folders without end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from flagscale_deploy.errors import InputError

MOST_LEVELS = 50
MOST_FILES = 20_000


def files_below(folder: Path, is_left_out: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the files of a folder, at any depth, in the order of their names; what is left out is not looked into.

    Links are followed, and each folder is read once: two links to `.` would stand for 2^40 folders. Raises InputError
    for a folder that cannot be read, for too many levels, and for too many files.
    """
    seen = set[tuple[int, int]]()
    for number, path in enumerate(_below(folder, is_left_out, seen, MOST_LEVELS)):
        if number >= MOST_FILES:
            raise InputError.at(str(folder), f"holds more than {MOST_FILES:,} files", "move what is not needed")
        yield path


def _below(
    folder: Path, is_left_out: Callable[[Path], bool], seen: set[tuple[int, int]], levels: int
) -> Iterator[Path]:
    try:
        status = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError.at(str(folder), f"cannot be read: {error.strerror}", "make it readable for you") from error
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    if not levels:
        raise InputError.at(str(folder), f"is more than {MOST_LEVELS} levels deep", "use fewer levels")
    for path in (folder / name for name in names):
        if is_left_out(path):
            continue
        if os.path.isdir(path):  # False, where Path.is_dir would raise, for a path that is too long
            yield from _below(path, is_left_out, seen, levels - 1)
        elif os.path.isfile(path):
            yield path
