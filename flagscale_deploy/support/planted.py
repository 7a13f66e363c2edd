"""Recognise what another user may have put where we look for files, or write them, that nobody has named: in /tmp.

That is also where relative paths of a configuration lead to from the working directory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flagscale_deploy.errors import FaultsError, InputError
from flagscale_deploy.support.shell import quote

MOST_PARTS = 1000
"""Directories and links on the way to a file."""


def refuse_planted(folder: Path, path: Path, *, named: bool = True) -> None:
    """Raise InputError for a path in a folder that another user may have made, as a whole or a part of it.

    That is one that `part_of_another_user` finds.
    """
    part = part_of_another_user(folder, path, named=named)
    if part is not None:
        remedy = f"move your own files to a directory of yours, or `chmod o-w {quote(str(part.parent))}`"
        raise _planted(path, part, remedy if _is_open(part.parent) else "work in a directory of yours")


def refuse_planted_output(path: Path) -> None:
    """Raise InputError for a path to write to that leads through what another user has put where everybody may write.

    That is a part of it in such a directory, or a link of theirs anywhere: they can lead it elsewhere at any time. The
    working directory itself is taken as it is.
    """
    at, parts = Path("/" if path.is_absolute() else "."), [*path.parts[path.is_absolute() :]]
    for _ in range(MOST_PARTS):
        if not parts:
            return
        below = at / parts.pop(0)
        try:
            status, is_open = os.lstat(below), _is_open(at)
        except (OSError, ValueError):  # not there; a name that no file can have
            return
        is_link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in (0, os.geteuid()) and (is_link or is_open):
            raise _planted(path, below, "name a folder of yours")
        if is_link:
            target = Path(os.readlink(below))
            at = Path("/") if target.is_absolute() else at
            parts = [*target.parts[target.is_absolute() :], *parts]
        else:
            at = below
    raise InputError.at(str(path), "leads through too many links", "name another folder")


def _planted(path: Path, part: Path, remedy: str) -> FaultsError:
    where = f": everybody may write to {part.parent}" if _is_open(part.parent) else ""
    return InputError.at(str(path), f"{part} is another user's{where}", remedy)


def part_of_another_user(folder: Path, path: Path, *, named: bool = True) -> Path | None:
    """Return the first part of a path in a folder that another user may have put there, None where there is none.

    That is one in a directory that everybody may write to, and neither ours, nor root's, nor its directory's owner's.
    Where nobody has `named` the folder, as the working directory, it is all that is neither ours nor root's. What is
    not there is nobody's. A group that may write to a directory is trusted with what is in it.
    """
    if path.is_absolute() and not path.is_relative_to(folder):
        return None  # it was named by itself
    at = folder
    for part in (path.relative_to(folder) if path.is_relative_to(folder) else path).parts:
        below = at / part
        try:
            above, owner = os.stat(at).st_uid, os.lstat(below).st_uid
        except (OSError, ValueError):  # not there; a name that no file can have
            return None
        if owner not in (0, os.geteuid()) and not (named and (owner == above or not _is_open(at))):
            return below
        at = below
    return None


def _is_open(folder: Path) -> bool:
    return bool(os.stat(folder).st_mode & stat.S_IWOTH)
