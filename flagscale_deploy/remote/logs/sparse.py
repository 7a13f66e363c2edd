"""Read what a file holds without its zeros: holes are neither read nor sent. Used on both sides."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import Iterator, Optional, Tuple

BLOCK = 1 << 20
ZEROS = bytes(BLOCK)


def pieces(descriptor: int, start: int, end: int) -> Iterator[Tuple[int, Optional[bytes]]]:
    """Return a file's bytes from `start` to `end` in pieces (length, bytes), None for zeros.

    It ends early where the file does. Pieces of bytes end at multiples of 1 MiB. A block of zeros is None whether the
    disk has it or not.
    """
    at = start
    while at < end:
        data = _next_data(descriptor, at, end)
        hole = (data if data >= end else max(at, data - data % BLOCK)) - at
        if hole:
            size = os.fstat(descriptor).st_size
            if size < at + hole:  # it was truncated meanwhile: what follows is no hole
                if size > at:
                    yield size - at, None
                return
            yield hole, None
            at += hole
            continue
        content = os.pread(descriptor, min(BLOCK - at % BLOCK, end - at), at)
        if not content:
            return
        at += len(content)
        zeros = content == (ZEROS if len(content) == BLOCK else ZEROS[: len(content)])
        yield len(content), None if zeros else content


def digest(descriptor: int, size: int) -> Optional[str]:
    """Return the SHA-256 of a file's first `size` bytes; None if the file is shorter.

    A run of zero blocks counts by its length: the digest is the same for equal bytes however sparse they lie.
    """
    whole, at, zeros = hashlib.sha256(), 0, 0
    for length, content in pieces(descriptor, 0, size):
        at += length
        if content is None:
            zeros += length
            continue
        whole.update(b"%d,%d:" % (zeros, length))
        whole.update(content)
        zeros = 0
    whole.update(b"%d." % zeros)
    return whole.hexdigest() if at == size else None


def _next_data(descriptor: int, at: int, end: int) -> int:
    """Return where data begins at or behind `at`; `end` if only zeros come."""
    try:
        return min(end, os.lseek(descriptor, at, os.SEEK_DATA))
    except OSError as error:
        return end if error.errno == errno.ENXIO else at  # EINVAL: a file system that doesn't know its holes
