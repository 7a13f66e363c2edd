"""Hide secrets in files that others will read, of any size: programs print their keys into their logs."""

from __future__ import annotations

import codecs
import errno
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import IO

from flagscale_deploy.remote.logs.sparse import BLOCK, pieces
from flagscale_deploy.remote.system.files import open_regular
from flagscale_deploy.secrets import Redactor

MOST_WAITING = 16 * BLOCK
"""Characters that are kept until it is seen where a secret ends."""


_ZEROS = re.compile(rb"(\0{4096,})")
"""Zeros within a block, which would become bytes on the disk."""
MOST_ZEROS = 64 << 30
"""Zeros of a folder that are read, a hole as one block; files that come after them are removed."""


def redact_folder(folder: Path, redactor: Redactor, most_zeros: int = MOST_ZEROS) -> dict[Path, str]:
    """Hide secrets in every file below a folder, in its place; no link is followed, and holes stay holes.

    A file that cannot be written anew is removed. Returns those, each with the reason.
    """
    removed = {}
    left = [most_zeros]
    for path in [] if folder.is_symlink() else sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            _redact_file(path, redactor, left)
        except OSError as error:
            path.unlink(missing_ok=True)
            removed[path] = error.strerror or str(error)
    return removed


def redacted(blocks: Iterable[bytes], redactor: Redactor) -> Iterator[tuple[str, str]]:
    """Yield a text that comes in blocks, in pieces, each as it was and redacted; no secret is cut in two.

    Bytes that are no UTF-8 come as lone surrogates, as `surrogateescape` has them.
    """
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text = ""
    for block in chain(blocks, (b"",)):
        text += decode(block, not block)
        end = len(text) if not block else redactor.cut(text, max(0, len(text) - redactor.longest))
        if not end and len(text) > MOST_WAITING:
            end = len(text)
        if end:
            piece, text = text[:end], text[end:]
            yield piece, redactor.redact(redactor.seen(piece))


def write_redacted(descriptor: int, written: IO[bytes], redactor: Redactor, left: list[int]) -> None:
    """Copy a file without its secrets; `left` counts the zeros that may be read. Raises OSError."""
    for piece in _pieces(descriptor, redactor, left):
        if isinstance(piece, int):
            written.seek(piece, os.SEEK_CUR)
        else:
            written.write(piece[1].encode("utf-8", "surrogateescape"))
    written.truncate()


def _redact_file(path: Path, redactor: Redactor, left: list[int]) -> None:
    with open_regular(str(path)) as file:
        if not any(
            isinstance(piece, tuple) and piece[0] != piece[1] for piece in _pieces(file.fileno(), redactor, left)
        ):
            return
        fresh = path.with_name(f".{os.urandom(8).hex()}.redacted")  # that of a command that was killed stays
        mode = os.fstat(file.fileno()).st_mode & 0o777
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as written:
                write_redacted(file.fileno(), written, redactor, left)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


def _pieces(descriptor: int, redactor: Redactor, left: list[int]) -> Iterator[tuple[str, str] | int]:
    """Yield a file's text as `redacted` does, and the lengths of its zeros. Raises OSError where too much is read."""
    read = _within(left, pieces(descriptor, 0, os.fstat(descriptor).st_size))
    for zeros, group in groupby(read, key=lambda piece: piece[1] is None):
        if zeros:
            yield from (length for length, _ in group)
        else:
            yield from redacted((content for _, content in group if content), redactor)


def _within(left: list[int], read: Iterator[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    """Yield what is read, with its zeros apart. Raises OSError after too many of them: not all file systems tell holes.

    The other bytes were received, within `max_total`.
    """
    for length, content in read:
        if content is None:
            left[0] -= min(length, BLOCK)
            if left[0] < 0:
                raise OSError(errno.EFBIG, "it and the files before it hold too many zeros")
            yield length, None
        else:
            for part in filter(None, _ZEROS.split(content)):
                yield len(part), part if part.strip(b"\0") else None
