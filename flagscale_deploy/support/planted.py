"""Recognise what another user may have put where we look for files, or write them, that nobody has named: in /tmp.

That is also where relative paths of a configuration lead to from the working directory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flagscale_deploy.errors import InputError


def refuse_planted(folder: Path, path: Path) -> None:
    """Raise InputError for a path in a folder that another user may have made, as a whole or a part of it.

    That is one in a directory that everybody may write to, and neither ours, nor root's, nor its directory's owner's.
    What is not there is nobody's.
    """
    if path.is_absolute() and not path.is_relative_to(folder):
        return  # it was named by itself
    at = folder
    for part in (path.relative_to(folder) if path.is_relative_to(folder) else path).parts:
        below = at / part
        if _is_planted(at, below):
            remedy = f"move your own files to a directory of yours, or `chmod o-w {at}`"
            raise InputError.at(str(path), f"{below} is another user's: everybody may write to {at}", remedy)
        at = below


def _is_planted(folder: Path, path: Path) -> bool:
    try:
        above, status = os.stat(folder), os.lstat(path)
    except (OSError, ValueError):  # not there; a name that no file can have
        return False
    return bool(above.st_mode & stat.S_IWOTH) and status.st_uid not in (0, os.getuid(), above.st_uid)
