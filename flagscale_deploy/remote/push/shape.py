"""Directories, links and modes of a tree: how a host's differ, and how they are set right."""

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
    """What is at a path below `root`, a link itself; None where nothing is, or a link is on the way."""
    with contextlib.suppress(OSError), parent_of(root, path) as (at, name):
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    return None


def difference(root: int, entry: TreeEntry) -> str:
    """How a directory or link differs: "missing", "different", "modes", or "" if it doesn't."""
    path = from_wire(entry["path"])
    found = look_at(root, path)
    if found is None:
        return "missing"
    if entry["kind"] == "link":
        return "" if stat.S_ISLNK(found.st_mode) and _target(root, path) == from_wire(entry["target"]) else "different"
    if not stat.S_ISDIR(found.st_mode):
        return "different"
    return "" if stat.S_IMODE(found.st_mode) & 0o777 == entry["mode"] else "modes"


def is_blocked(root: int, entry: TreeEntry) -> bool:
    """Whether a directory stands where another thing belongs, or another thing where a directory does.

    A link is in nobody's way: it is replaced.
    """
    found = look_at(root, from_wire(entry["path"]))
    if found is None or stat.S_ISLNK(found.st_mode):
        return False
    return bool(stat.S_ISDIR(found.st_mode) != (entry["kind"] == "dir"))


def put_link(root: int, staging: int, path: bytes, target: bytes) -> None:
    """Have a link there, in the place of what was; it is never half there. Raises OSError."""
    with contextlib.suppress(OSError):
        if _target(root, path) == target:
            return
    beside = b"link-" + hashlib.sha256(path).hexdigest()[:24].encode()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=staging)
    os.symlink(target, beside, dir_fd=staging)
    with parent_of(root, path, make=True) as (at, name):
        os.rename(beside, name, src_dir_fd=staging, dst_dir_fd=at)


def set_mode(root: int, path: bytes, mode: int) -> None:
    """Give a file or directory its mode, if it has another. Raises OSError."""
    with parent_of(root, path) as (at, name):
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_IMODE(found.st_mode) == mode:
            return
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=at)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _target(root: int, path: bytes) -> bytes:
    with parent_of(root, path) as (at, name):
        found: bytes = os.readlink(name, dir_fd=at)
        return found
