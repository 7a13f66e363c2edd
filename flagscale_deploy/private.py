"""What is written on the operator's disk is for the operator alone, unless it was asked for to be handed on."""

from __future__ import annotations

import os
from pathlib import Path

_PRIVATE = 0o077
_users: list[int] = []
"""The umask that the user had, once it has been changed."""


def keep_private() -> None:
    """From now on this process makes files that only their owner may read (umask 077). Doing it again does nothing."""
    if not _users:
        _users.append(os.umask(_PRIVATE))


def users_umask() -> int:
    """The umask for programs of the user's that we start: the one before `keep_private`; -1 is the process's own."""
    return _users[0] if _users else -1


def hand_on(path: Path) -> None:
    """Give a file or folder that CI will read the mode that it has by the user's own umask."""
    if _users:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_users[0])
