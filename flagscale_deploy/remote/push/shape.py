"""Compare a host's directories, links and modes with those of a tree, and correct them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Optional

from flagscale_deploy.remote.push.place import parent_of
from flagscale_deploy.remote.push.tree import from_wire

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import TreeEntry


def look_at(root: int, path: bytes) -> Optional[os.stat_result]:
    """Return the status of a path below `root`, of a link itself; None if nothing is there, or behind a link."""
    with contextlib.suppress(OSError), parent_of(root, path) as (at, name):
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    return None


def difference(root: int, entry: TreeEntry) -> str:
    """Return how a directory or link differs: "missing", "different", "modes", or "" if it does not."""
    path = from_wire(entry["path"])
    status = look_at(root, path)
    if status is None:
        return "missing"
    if entry["kind"] == "link":
        return "" if stat.S_ISLNK(status.st_mode) and _target(root, path) == from_wire(entry["target"]) else "different"
    if not stat.S_ISDIR(status.st_mode):
        return "different"
    return "" if has_mode(status, entry["mode"]) else "modes"


def has_mode(status: os.stat_result, mode: int) -> bool:
    """Return whether a file or directory has a mode. Whether its group may write is this host's own affair.

    So is a directory's setgid bit, which hands its group on.
    """
    own = 0o020 | (stat.S_ISGID if stat.S_ISDIR(status.st_mode) else 0)
    return stat.S_IMODE(status.st_mode) & ~own == mode


def is_blocked(root: int, entry: TreeEntry) -> bool:
    """Return whether a directory is in the place of something else, or the reverse. Links do not block."""
    status = look_at(root, from_wire(entry["path"]))
    if status is None or stat.S_ISLNK(status.st_mode):
        return False
    return bool(stat.S_ISDIR(status.st_mode) != (entry["kind"] == "dir"))


def put_link(root: int, staging: int, path: bytes, target: bytes) -> None:
    """Make a link atomically, in the place of what was there. Raises OSError."""
    with contextlib.suppress(OSError):
        if _target(root, path) == target:
            return
    unfinished = b"link-" + hashlib.sha256(path).hexdigest()[:24].encode()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished, dir_fd=staging)
    os.symlink(target, unfinished, dir_fd=staging)
    with parent_of(root, path, make=True) as (at, name):
        os.rename(unfinished, name, src_dir_fd=staging, dst_dir_fd=at)


def set_mode(root: int, path: bytes, mode: int) -> None:
    """Set the mode of a file or directory if it is another. Raises OSError."""
    with parent_of(root, path) as (at, name):
        if has_mode(os.stat(name, dir_fd=at, follow_symlinks=False), mode):
            return
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=at)
    try:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) in (stat.S_IFREG, stat.S_IFDIR):  # else it has been replaced
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _target(root: int, path: bytes) -> bytes:
    with parent_of(root, path) as (at, name):
        target: bytes = os.readlink(name, dir_fd=at)
        return target
