"""Names and directories on the operator's disk."""

from __future__ import annotations

import re
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.system.files import make_private_directory


def make_directory(path: Path, remedy: str = "", *, fresh: bool = False) -> None:
    """Make a directory and its parents, readable by their owner only; `fresh`: it must not exist yet.

    Raises InputError where that is not possible.
    """
    try:
        make_private_directory(path, fresh=fresh)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be made: {error.strerror}", remedy) from error


def safe_name(host: str) -> str:
    """Return a host's name as the name of a folder: one that never leads elsewhere, and that no two hosts share."""
    return re.sub(r"[/%\x00-\x1f]|^\.", lambda match: f"%{ord(match[0]):02X}", host) or "%"
