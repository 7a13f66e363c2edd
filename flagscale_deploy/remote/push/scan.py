"""List a tree of files of this machine for `push`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, List, Literal, Tuple

from flagscale_deploy.remote.push.links import leading_out
from flagscale_deploy.remote.push.tree import PERMISSIONS, STAGING, from_wire, to_wire

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushTree, TreeEntry


def scan(source: bytes, copy_links: bool = False) -> PushTree:
    """Return the entries of a tree, in the order of paths. Raises OSError for what cannot be read.

    With `copy_links`, links are replaced by what they lead to.
    """
    status = os.stat(source)
    if stat.S_ISREG(status.st_mode):
        entry = _entry(os.path.basename(os.path.abspath(source)), status)
        return {"single": True, "mode": 0o755, "entries": [entry], "left_out": [], "outside": []}
    walk = _Walk(source, copy_links)
    walk.directory(b"", (status.st_dev, status.st_ino), ())
    walk.entries.sort(key=lambda entry: from_wire(entry["path"]))
    outside = leading_out(walk.entries)
    return {
        "single": False,
        "mode": stat.S_IMODE(status.st_mode) & PERMISSIONS,
        "entries": walk.entries,
        "left_out": walk.left_out,
        "outside": outside,
    }


class _Walk:
    """The walk through a tree that collects its entries."""

    def __init__(self, source: bytes, copy_links: bool) -> None:
        self._source, self._copy_links = source, copy_links
        self.entries: List[TreeEntry] = []
        self.left_out: List[str] = []

    def directory(self, path: bytes, identity: Tuple[int, int], above: Tuple[Tuple[int, int], ...]) -> None:
        """Add a directory's content. A directory that contains itself by a link is not entered again."""
        if identity in above:
            self.left_out.append(to_wire(path))
            return
        for name in sorted(os.listdir(os.path.join(self._source, path))):
            if not path and name == STAGING:
                continue
            self._add(os.path.join(path, name), (*above, identity))

    def _add(self, path: bytes, above: Tuple[Tuple[int, int], ...]) -> None:
        full = os.path.join(self._source, path)
        status = os.stat(full) if self._copy_links else os.lstat(full)
        if stat.S_ISDIR(status.st_mode):
            self.entries.append(_entry(path, status))
            self.directory(path, (status.st_dev, status.st_ino), above)
        elif stat.S_ISLNK(status.st_mode):
            self.entries.append({**_entry(path, status), "target": to_wire(os.readlink(full))})
        elif stat.S_ISREG(status.st_mode):
            if not os.access(full, os.R_OK):
                raise PermissionError(13, os.strerror(13), full)
            self.entries.append(_entry(path, status))
        else:
            self.left_out.append(to_wire(path))


def _entry(path: bytes, status: os.stat_result) -> TreeEntry:
    kind: Literal["file", "dir", "link"] = (
        "dir" if stat.S_ISDIR(status.st_mode) else "link" if stat.S_ISLNK(status.st_mode) else "file"
    )
    return {
        "path": to_wire(path),
        "kind": kind,
        "mode": stat.S_IMODE(status.st_mode) & PERMISSIONS,
        "size": status.st_size if kind == "file" else 0,
        "mtime_ns": status.st_mtime_ns,
    }
