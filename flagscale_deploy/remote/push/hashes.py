"""Compute hashes of blocks in several threads, holes unread, and cache them for as long as a file stays the same."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from flagscale_deploy.remote.push.tree import Span, block_count, blocks
from flagscale_deploy.remote.system import files, json_files

READ = 1 << 20
LARGEST_CACHE = 64 << 20
SIZE = 32
"""Bytes of a SHA-256."""
THREADS = 8
Open = Callable[[int], int]
"""Return a descriptor of the file with this number, for the caller to close. Raises OSError."""
Progress = Callable[[int], None]
"""Take the number of bytes that have been read since the last call."""


def silent(_count: int) -> None:
    """Ignore progress."""


def to_text(digests: bytes) -> str:
    """Return the hashes of a file as text for JSON."""
    return base64.b64encode(digests).decode()


def from_text(text: str) -> bytes:
    """Return the hashes that such a text stands for. Raises ValueError for any other text."""
    return base64.b64decode(text, validate=True)


@functools.lru_cache(maxsize=None)
def of_zeros(length: int) -> bytes:
    """Return the hash of so many zero bytes."""
    hasher, zeros = hashlib.sha256(), bytes(READ)
    for at in range(0, length, READ):
        hasher.update(memoryview(zeros)[: min(READ, length - at)])
    return hasher.digest()


def of_hole(size: int) -> bytes:
    """Return the hashes of the blocks of a file that is a single hole."""
    return b"".join(of_zeros(span.length) for span in blocks(0, size))


def of_span(descriptor: int, offset: int, length: int, progress: Progress = silent) -> bytes:
    """Return the hash of a part of a file. Raises EOFError if the file ends before."""
    if is_hole(descriptor, offset, length):
        progress(length)
        return of_zeros(length)
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(min(READ, length)))
    end = offset + length
    while offset < end:
        count = os.preadv(descriptor, [buffer[: end - offset]], offset)
        if not count:
            raise EOFError("it became shorter while it was read")
        hasher.update(buffer[:count])
        progress(count)
        offset += count
    return hasher.digest()


def is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Return whether a part of a file was never written: it reads as zeros, and takes no space."""
    if os.fstat(descriptor).st_size < offset + length:
        return False
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # there is no data up to the end of the file


def of_files(open_file: Open, sizes: Sequence[Tuple[int, int]], progress: Progress = silent) -> Dict[int, bytes]:
    """Return the hashes of all blocks of files (number, size), by the file's number. Raises OSError, EOFError."""

    def work(span: Span) -> bytes:
        descriptor = open_file(span.file)
        try:
            return of_span(descriptor, span.offset, span.length, progress)
        finally:
            os.close(descriptor)

    digests = {file: bytearray() for file, _ in sizes}
    spans: List[Span] = []
    for file, size in sizes:
        if _is_empty(open_file(file), size):
            digests[file] += of_hole(size)
        else:
            spans += blocks(file, size)
    with ThreadPoolExecutor(max(1, min(THREADS, _usable_cpus()))) as pool:
        for span, digest in zip(spans, pool.map(work, spans)):
            digests[span.file] += digest
    return {file: bytes(joined) for file, joined in digests.items()}


def _usable_cpus() -> int:
    """Return how many CPUs this process may use; of the operator's machine, which may be no Linux, how many it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_empty(descriptor: int, size: int) -> bool:
    """Return whether a file is a single hole, such as one that was just made for what is to come."""
    try:
        return is_hole(descriptor, 0, size)
    finally:
        os.close(descriptor)


class HashCache:
    """The hashes of the files of one tree, in ~/.cache/flagscale-deploy/push; `key` names host and directory.

    A file is the same while its size, its times of change (both kinds) and its inode are. A hash that cannot be cached
    is computed again.
    """

    def __init__(self, key: str) -> None:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json"
        self._path = Path(os.path.expanduser("~"), ".cache", "flagscale-deploy", "push", name)
        self._entries: Dict[str, List[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            self._entries = json_files.read_object(str(self._path), LARGEST_CACHE)

    def get(self, path: str, status: os.stat_result) -> Optional[bytes]:
        """Return the hashes of a file, None if it has changed since."""
        entry = self._entries.get(path)
        if not isinstance(entry, list) or entry[:-1] != _identity(status):
            return None
        with contextlib.suppress(ValueError):
            digests = from_text(str(entry[-1]))
            return digests if len(digests) == SIZE * block_count(status.st_size) else None
        return None

    def put(self, path: str, status: os.stat_result, digests: bytes) -> None:
        """Add a file's hashes."""
        self._entries[path] = [*_identity(status), to_text(digests)]

    def save(self, paths: Sequence[str]) -> None:
        """Write the cache to disk with the hashes of these files only."""
        kept = {path: self._entries[path] for path in paths if path in self._entries}
        with contextlib.suppress(OSError):
            files.make_private_directory(self._path.parent)
            files.write_atomically(self._path, json.dumps(kept))


def _identity(status: os.stat_result) -> List[object]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
