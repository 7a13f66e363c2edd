"""Keep what a deployment has on this host before it is changed: `before/` in the state directory, until that is over.

It holds copies of scripts, secrets and a program's files, for their owner alone. It is whole or absent: it is made
under another name, and loses its own before it is removed. No link is followed, and only regular files are copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterable, Iterator, Optional, Tuple

from flagscale_deploy.remote.system import files

FOLDER, UNFINISHED = "before", "before.new"
SCRIPTS, EXACT = "scripts", ("secrets", "app")
"""What is kept; of the latter all is put back, and what was not there before is removed."""
SHARED = ("ray_nodes.sh", "notify.sh", "warm.sh")
"""Scripts that all groups of a host have."""


def carry_out(directory: Path, wanted: Optional[str], scripts: Iterable[str]) -> None:
    """Keep what is there now, restore these scripts, or forget what is kept. Raises as these do."""
    if wanted == "keep":
        keep(directory)
    elif wanted == "restore":
        restore(directory, scripts)
    elif wanted == "forget":
        forget(directory)


def keep(directory: Path) -> None:
    """Keep what is there now, unless something is kept. Raises OSError, with nothing kept."""
    if _is_kept(directory):
        return
    forget(directory)
    unfinished = directory / UNFINISHED
    files.make_private_directory(unfinished, fresh=True)
    for folder in (SCRIPTS, *EXACT):
        for name, regular in _entries(directory, folder):
            if regular:
                _copy(directory, unfinished, name)
    os.rename(str(unfinished), str(directory / FOLDER))


def restore(directory: Path, scripts: Iterable[str]) -> None:
    """Put back these scripts and the shared ones, where they are kept, and all secrets and files of a program.

    It may be done again. Raises RuntimeError where nothing is kept, and OSError.
    """
    if not _is_kept(directory):
        raise RuntimeError("%s is not there: what ran before the change was not kept on this host" % FOLDER)
    source = directory / FOLDER
    wanted = {"%s/%s" % (SCRIPTS, name) for name in (*scripts, *SHARED)}
    for folder in (SCRIPTS, *EXACT):
        if (directory / folder).is_symlink():
            raise RuntimeError("%s is a link: remove it" % (directory / folder))
        kept = {name for name, _ in _entries(source, folder)}
        for name, regular in [*_entries(directory, folder)] if folder in EXACT else ():
            if name not in kept or not regular:
                os.unlink(str(directory / name))
        for name in sorted(kept & wanted if folder == SCRIPTS else kept):
            _copy(source, directory, name)


def forget(directory: Path) -> None:
    """Remove what is kept; nothing where that was done. Raises OSError."""
    _remove(directory / UNFINISHED)
    if os.path.lexists(str(directory / FOLDER)):
        os.rename(str(directory / FOLDER), str(directory / UNFINISHED))
        _remove(directory / UNFINISHED)


def _is_kept(directory: Path) -> bool:
    folder = directory / FOLDER
    return folder.is_dir() and not folder.is_symlink()


def _entries(top: Path, folder: str) -> Iterator[Tuple[str, bool]]:
    """Yield what lies in a folder and below, by its path from `top`, and whether it is a regular file."""
    if not (top / folder).is_dir() or (top / folder).is_symlink():
        return
    with os.scandir(str(top / folder)) as inside:
        for entry in inside:
            name = "%s/%s" % (folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(top, name)
            else:
                yield name, entry.is_file(follow_symlinks=False)


def _copy(source: Path, target: Path, name: str) -> None:
    files.make_private_directory((target / name).parent)
    files.copy_atomically(str(source / name), target / name)


def _remove(path: Path) -> None:
    """Remove a folder, or what else has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
        return
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
