"""File modes on the operator's disk: private to the operator, except files that are meant for others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PRIVATE = 0o077
_users: list[int] = []
"""The user's own umask, while it is changed."""


@contextmanager
def kept_private() -> Iterator[None]:
    """Make files in the block readable by their owner only (umask 077)."""
    _users.append(os.umask(_PRIVATE))
    try:
        yield
    finally:
        os.umask(_users.pop())


def users_umask() -> int:
    """Return the umask for programs of the user's: the one before `kept_private`; -1 is the process's own."""
    return _users[0] if _users else -1


def hand_on(path: Path) -> None:
    """Give a file or folder that CI will read the mode of the user's own umask; nothing behind a link or of others."""
    if not _users:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # a link, or nothing
        return
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind in (stat.S_IFDIR, stat.S_IFREG):
            with suppress(PermissionError):  # a folder of another user, in which we may write
                os.fchmod(descriptor, (0o777 if kind == stat.S_IFDIR else 0o666) & ~_users[0])
    finally:
        os.close(descriptor)
