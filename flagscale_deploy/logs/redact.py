"""Hide secrets in files that others will read, of any size: programs print their keys into their logs."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flagscale_deploy.secrets import Redactor

BLOCK = 1 << 20
MOST_WAITING = 16 * BLOCK
"""Characters that are kept until it is seen where a secret ends."""


def redact_folder(folder: Path, redactor: Redactor) -> dict[Path, str]:
    """Hide secrets in every file below a folder, in its place; links are not followed.

    A file that cannot be written anew is removed. Returns those, each with the reason.
    """
    removed = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            _redact_file(path, redactor)
        except OSError as error:
            path.unlink(missing_ok=True)
            removed[path] = error.strerror or str(error)
    return removed


def redacted(file: BinaryIO, redactor: Redactor) -> Iterator[tuple[str, str]]:
    """Yield the text of a file in pieces, each as it was and redacted; no secret is cut in two.

    Bytes that are no UTF-8 come as lone surrogates, as `surrogateescape` has them.
    """
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text = ""
    while True:
        block = file.read(BLOCK)
        text += decode(block, not block)
        if not text:
            return
        end = len(text) if not block else redactor.cut(text, max(0, len(text) - redactor.longest))
        if not end and len(text) > MOST_WAITING:
            end = len(text)
        if end:
            piece, text = text[:end], text[end:]
            yield piece, redactor.redact(redactor.seen(piece))


def _redact_file(path: Path, redactor: Redactor) -> None:
    with path.open("rb") as file:
        if not any(piece != hidden for piece, hidden in redacted(file, redactor)):
            return
        file.seek(0)
        fresh = path.with_name(f".{path.name[:200]}.redacted")
        mode = os.fstat(file.fileno()).st_mode & 0o777
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as written:
                for _, hidden in redacted(file, redactor):
                    written.write(hidden.encode("utf-8", "surrogateescape"))
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
