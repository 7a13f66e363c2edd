"""Describe a tree of files as `push` sends it: its entries, and how its files are cut into pieces.

A path travels as its bytes, each as the character of the same number (Latin-1): a name may be any bytes, and JSON
carries text. Sizes are in bytes.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Iterable, List, Literal, NamedTuple, Sequence, Tuple

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushTree, TreeEntry

STAGING = b".flagscale-push"
"""Where files are kept below DEST until they are whole."""
SMALLEST, LARGEST = 1 << 20, 64 << 20
BLOCKS = 256
"""A file has blocks of a size that makes about as many of them."""
BUNDLED = 256
"""The most small files that make one piece."""


class Span(NamedTuple):
    """A block of a file: the unit that has a hash. `file` is the number of the file in the tree."""

    file: int
    offset: int
    length: int


Piece = Tuple[Span, ...]
"""What is sent at once: one block of a large file, or small files whole."""


def to_wire(path: bytes) -> str:
    """Return a path as text for JSON."""
    return path.decode("latin-1")


def from_wire(text: str) -> bytes:
    """Return the path that such a text stands for. Raises ValueError for any other text."""
    return text.encode("latin-1")


def checked(path: bytes) -> bytes:
    """Return a path that stays below its directory. Raises ValueError for any other."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or b"\0" in path or parts[0] == STAGING:
        raise ValueError("not the path of a file in a tree: %r" % path)
    return path


def block_size(size: int) -> int:
    """Return the size of a file's blocks. It depends on the file's size alone, so that hashes can be cached."""
    block = SMALLEST
    while block < LARGEST and block * BLOCKS < size:
        block *= 2
    return block


def blocks(file: int, size: int) -> List[Span]:
    """Return the blocks of a file; an empty one has none."""
    step = block_size(size)
    return [Span(file, at, min(step, size - at)) for at in range(0, size, step)]


def pieces(sizes: Sequence[int]) -> List[Piece]:
    """Return the pieces of a tree, by the sizes of its files."""
    cut: List[Piece] = []
    bundle: List[Span] = []
    for file, size in enumerate(sizes):
        if size > SMALLEST:
            cut.extend((span,) for span in blocks(file, size))
            continue
        if bundle and (len(bundle) == BUNDLED or sum(span.length for span in bundle) + size > SMALLEST):
            cut.append(tuple(bundle))
            bundle = []
        bundle.extend(blocks(file, size))
    return cut + ([tuple(bundle)] if bundle else [])


def bytes_of(piece: Iterable[Span]) -> int:
    """Return the size of a piece."""
    return sum(span.length for span in piece)


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
    return {
        "single": False,
        "mode": stat.S_IMODE(status.st_mode) & 0o777,
        "entries": walk.entries,
        "left_out": walk.left_out,
        "outside": walk.outside,
    }


class _Walk:
    """The walk through a tree that collects its entries."""

    def __init__(self, source: bytes, copy_links: bool) -> None:
        self._source, self._copy_links = source, copy_links
        self._real = os.path.realpath(source)
        self.entries: List[TreeEntry] = []
        self.left_out: List[str] = []
        self.outside: List[str] = []

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
            target = os.readlink(full)
            self.entries.append({**_entry(path, status), "target": to_wire(target)})
            real = os.path.realpath(full)
            if os.path.commonpath([real, self._real]) != self._real:
                self.outside.append(to_wire(path))
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
        "mode": stat.S_IMODE(status.st_mode) & 0o777,
        "size": status.st_size if kind == "file" else 0,
        "mtime_ns": status.st_mtime_ns,
    }
