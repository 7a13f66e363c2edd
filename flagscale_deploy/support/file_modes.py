"""What is written on the operator's disk is for the operator alone, unless it was asked for to be handed on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PRIVATE = 0o077
_users: list[int] = []
"""The umask that the user had, while it is changed."""


@contextmanager
def kept_private() -> Iterator[None]:
    """In the block this process makes files that only their owner may read (umask 077)."""
    _users.append(os.umask(_PRIVATE))
    try:
        yield
    finally:
        os.umask(_users.pop())


def users_umask() -> int:
    """The umask for programs of the user's that we start: the one before `kept_private`; -1 is the process's own."""
    return _users[0] if _users else -1


def hand_on(path: Path) -> None:
    """Give a file or folder that CI will read the mode that it has by the user's own umask."""
    if _users:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_users[0])
