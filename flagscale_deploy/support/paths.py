"""Names and directories on the operator's disk."""

from __future__ import annotations

import re
from pathlib import Path

from flagscale_deploy.errors import InputError


def make_directory(path: Path, remedy: str = "", *, fresh: bool = False) -> None:
    """Make it and its parents, for the owner's eyes only; `fresh`: it may not be there.

    Raises InputError where that is not possible.
    """
    try:
        for each in reversed(path.parents):  # their mode is not that of `mkdir(parents=True)`
            if not each.is_dir():
                each.mkdir(mode=0o700, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=not fresh)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be made: {error.strerror}", remedy) from error


def safe_name(host: str) -> str:
    """A host's name as the name of a folder: never a way out of where it lies, and no two hosts share one."""
    return re.sub(r"[/%\x00-\x1f]|^\.", lambda found: f"%{ord(found[0]):02X}", host) or "%"
