"""Hashes of blocks: read by several threads, holes not at all, and kept for as long as a file stays the same."""

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

from flagscale_deploy.remote.push.tree import Span, blocks
from flagscale_deploy.remote.system import files

READ = 1 << 20
SIZE = 32
"""Bytes of a SHA-256."""
THREADS = 8
Open = Callable[[int], int]
"""Opens the file of this number; whoever asks closes it. Raises OSError."""
Told = Callable[[int], None]


def silent(_count: int) -> None:
    """For those who don't want to be told."""


def to_text(digests: bytes) -> str:
    """Hashes of a file, one after the other, as JSON can carry them."""
    return base64.b64encode(digests).decode()


def from_text(text: str) -> bytes:
    """The hashes that such a text stands for."""
    return base64.b64decode(text)


@functools.lru_cache(maxsize=None)
def of_zeros(length: int) -> bytes:
    """The hash of so many zero bytes."""
    found, zeros = hashlib.sha256(), bytes(READ)
    for at in range(0, length, READ):
        found.update(memoryview(zeros)[: min(READ, length - at)])
    return found.digest()


def of_span(descriptor: int, offset: int, length: int, told: Told = silent) -> bytes:
    """The hash of a part of a file; `told` hears of the bytes that were read. Raises EOFError where it ends before."""
    if is_hole(descriptor, offset, length):
        told(length)
        return of_zeros(length)
    found, buffer = hashlib.sha256(), memoryview(bytearray(min(READ, length)))
    end = offset + length
    while offset < end:
        count = os.preadv(descriptor, [buffer[: end - offset]], offset)
        if not count:
            raise EOFError("it became shorter while it was read")
        found.update(buffer[:count])
        told(count)
        offset += count
    return found.digest()


def is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether nothing was ever written to a part of a file: it reads as zeros, and takes no space."""
    if os.fstat(descriptor).st_size < offset + length:
        return False
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # there is no data up to the end of the file


def of_files(open_file: Open, sizes: Sequence[Tuple[int, int]], told: Told = silent) -> Dict[int, bytes]:
    """The hashes of files (number, size), of all their blocks one after the other. Raises OSError, EOFError."""

    def work(span: Span) -> bytes:
        descriptor = open_file(span.file)
        try:
            return of_span(descriptor, span.offset, span.length, told)
        finally:
            os.close(descriptor)

    found = {file: bytearray() for file, _ in sizes}
    spans: List[Span] = []
    for file, size in sizes:
        if _is_empty(open_file(file), size):
            found[file] += b"".join(of_zeros(span.length) for span in blocks(file, size))
        else:
            spans += blocks(file, size)
    with ThreadPoolExecutor(max(1, min(THREADS, _usable_cpus()))) as pool:
        for span, digest in zip(spans, pool.map(work, spans)):
            found[span.file] += digest
    return {file: bytes(digests) for file, digests in found.items()}


def _usable_cpus() -> int:
    """Return how many CPUs this process may use; of the operator's machine, which may be no Linux, how many it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_empty(descriptor: int, size: int) -> bool:
    """Whether a file is one hole: one that was only just made, say, for what is to come."""
    try:
        return is_hole(descriptor, 0, size)
    finally:
        os.close(descriptor)


class Memory:
    """Hashes of the files of one tree, in ~/.cache/flagscale-deploy/push; `key` names host and directory.

    A file is the same while size, times of change (both kinds) and inode are. What can't be kept is computed again.
    """

    def __init__(self, key: str) -> None:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json"
        self._path = Path(os.path.expanduser("~"), ".cache", "flagscale-deploy", "push", name)
        self._known: Dict[str, List[object]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text())
            if isinstance(known, dict):
                self._known = known

    def get(self, path: str, found: os.stat_result) -> Optional[bytes]:
        """The hashes of a file, if it is still the one that they were computed from."""
        known = self._known.get(path)
        if not isinstance(known, list) or known[:-1] != _identity(found):
            return None
        digests = from_text(str(known[-1]))
        return digests if len(digests) == SIZE * len(blocks(0, found.st_size)) else None

    def put(self, path: str, found: os.stat_result, digests: bytes) -> None:
        """Remember a file's hashes."""
        self._known[path] = [*_identity(found), to_text(digests)]

    def save(self, paths: Sequence[str]) -> None:
        """Keep what is known of these files, and of no others."""
        kept = {path: self._known[path] for path in paths if path in self._known}
        with contextlib.suppress(OSError):
            files.make_private_directory(self._path.parent)
            files.write_atomically(self._path, json.dumps(kept))


def _identity(found: os.stat_result) -> List[object]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
