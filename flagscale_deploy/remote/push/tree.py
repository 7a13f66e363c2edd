"""A tree of files as `push` sends it: what it holds, and how its files are cut.

A path travels as its bytes, each as the character of the same number (Latin-1): a name may be any bytes, and JSON
carries text. Sizes in bytes.
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
    """A block of a file: the unit that has a hash. `file` counts the files of a tree."""

    file: int
    offset: int
    length: int


Piece = Tuple[Span, ...]
"""What is sent at once: one block of a large file, or small files whole."""


def to_wire(path: bytes) -> str:
    """A path as JSON can carry it."""
    return path.decode("latin-1")


def from_wire(text: str) -> bytes:
    """A path as it was. Raises ValueError where it is none."""
    return text.encode("latin-1")


def checked(path: bytes) -> bytes:
    """A path that stays below the directory that it is relative to. Raises ValueError for any other."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or b"\0" in path or parts[0] == STAGING:
        raise ValueError("not the path of a file in a tree: %r" % path)
    return path


def block_size(size: int) -> int:
    """The size of the blocks of a file. It depends on nothing but the file's size: hashes can be kept."""
    block = SMALLEST
    while block < LARGEST and block * BLOCKS < size:
        block *= 2
    return block


def blocks(file: int, size: int) -> List[Span]:
    """The blocks of a file; an empty one has none."""
    step = block_size(size)
    return [Span(file, at, min(step, size - at)) for at in range(0, size, step)]


def pieces(sizes: Sequence[int]) -> List[Piece]:
    """The pieces of a tree, from the sizes of its files."""
    found: List[Piece] = []
    bundle: List[Span] = []
    for file, size in enumerate(sizes):
        if size > SMALLEST:
            found.extend((span,) for span in blocks(file, size))
            continue
        if bundle and (len(bundle) == BUNDLED or sum(span.length for span in bundle) + size > SMALLEST):
            found.append(tuple(bundle))
            bundle = []
        bundle.extend(blocks(file, size))
    return found + ([tuple(bundle)] if bundle else [])


def bytes_of(piece: Iterable[Span]) -> int:
    """The size of a piece."""
    return sum(span.length for span in piece)


def scan(source: bytes, copy_links: bool = False) -> PushTree:
    """Return what is there, in the order of paths.

    With `copy_links` what links lead to is taken in their place. Raises OSError for what can't be read.
    """
    found = os.stat(source)
    if stat.S_ISREG(found.st_mode):
        entry = _entry(os.path.basename(os.path.abspath(source)), found)
        return {"single": True, "mode": 0o755, "entries": [entry], "left_out": [], "outside": []}
    walk = _Walk(source, copy_links)
    walk.directory(b"", (found.st_dev, found.st_ino), ())
    walk.entries.sort(key=lambda entry: from_wire(entry["path"]))
    return {
        "single": False,
        "mode": stat.S_IMODE(found.st_mode) & 0o777,
        "entries": walk.entries,
        "left_out": walk.left_out,
        "outside": walk.outside,
    }


class _Walk:
    """One way through a tree."""

    def __init__(self, source: bytes, copy_links: bool) -> None:
        self._source, self._copy_links = source, copy_links
        self._real = os.path.realpath(source)
        self.entries: List[TreeEntry] = []
        self.left_out: List[str] = []
        self.outside: List[str] = []

    def directory(self, path: bytes, identity: Tuple[int, int], above: Tuple[Tuple[int, int], ...]) -> None:
        """Take a directory's content. One that a link leads back to, from below itself, is not entered again."""
        if identity in above:
            self.left_out.append(to_wire(path))
            return
        for name in sorted(os.listdir(os.path.join(self._source, path))):
            if not path and name == STAGING:
                continue
            self._take(os.path.join(path, name), (*above, identity))

    def _take(self, path: bytes, above: Tuple[Tuple[int, int], ...]) -> None:
        full = os.path.join(self._source, path)
        found = os.stat(full) if self._copy_links else os.lstat(full)
        if stat.S_ISDIR(found.st_mode):
            self.entries.append(_entry(path, found))
            self.directory(path, (found.st_dev, found.st_ino), above)
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(full)
            self.entries.append({**_entry(path, found), "target": to_wire(target)})
            real = os.path.realpath(full)
            if os.path.commonpath([real, self._real]) != self._real:
                self.outside.append(to_wire(path))
        elif stat.S_ISREG(found.st_mode):
            if not os.access(full, os.R_OK):
                raise PermissionError(13, os.strerror(13), full)
            self.entries.append(_entry(path, found))
        else:
            self.left_out.append(to_wire(path))


def _entry(path: bytes, found: os.stat_result) -> TreeEntry:
    kind: Literal["file", "dir", "link"] = (
        "dir" if stat.S_ISDIR(found.st_mode) else "link" if stat.S_ISLNK(found.st_mode) else "file"
    )
    return {
        "path": to_wire(path),
        "kind": kind,
        "mode": stat.S_IMODE(found.st_mode) & 0o777,
        "size": found.st_size if kind == "file" else 0,
        "mtime_ns": found.st_mtime_ns,
    }
