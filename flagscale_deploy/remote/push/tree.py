"""Describe a tree of files as `push` sends it: the form of its paths, and how its files are cut into pieces.

A path travels as its bytes, each as the character of the same number (Latin-1): a name may be any bytes, and JSON
carries text. Sizes are in bytes.
"""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Sequence, Tuple

STAGING = b".flagscale-push"
"""Where files are kept below DEST until they are whole."""
SMALLEST, LARGEST = 1 << 20, 64 << 20
BLOCKS = 256
"""A file has blocks of a size that makes about as many of them."""
BUNDLED = 256
"""The most small files that make one piece."""
PERMISSIONS = 0o755
"""The permission bits that are sent. A copy may be written by its owner only, and bears no setuid, setgid or sticky."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes, as Linux has them (NAME_MAX, and PATH_MAX less the final NUL)."""


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
    """Return a path that stays below its directory. Raises ValueError for any other, and for one that is too long."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or b"\0" in path or parts[0] == STAGING:
        raise ValueError("not the path of a file in a tree: %r" % path[:LONGEST_NAME])
    if len(path) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME:
        raise ValueError("not the path of a file in a tree, it is too long: %r" % path[:LONGEST_NAME])
    return path


def block_size(size: int) -> int:
    """Return the size of a file's blocks. It depends on the file's size alone, so that hashes can be cached."""
    block = SMALLEST
    while block < LARGEST and block * BLOCKS < size:
        block *= 2
    return block


def block_count(size: int) -> int:
    """Return how many blocks a file has, without making them."""
    return -(-size // block_size(size))


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
