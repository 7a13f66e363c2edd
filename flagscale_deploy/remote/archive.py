"""Streams a deployment's log files as a tar archive.

main({deployment, host, max_size: None | bytes}) says {"archive": true} and then writes an uncompressed tar stream to
standard output. Members have the names of `logfiles`. A file that grows meanwhile is cut where it ended when its turn
came; of one longer than `max_size` the last `max_size` bytes are sent. What did not come whole is listed in a last
member, `.errors.json`: [{name, why}].
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from typing import IO, Any, Dict, List, Optional

from flagscale_deploy.remote import logfiles
from flagscale_deploy.remote.wire import say

ERRORS = ".errors.json"
BLOCK = 1 << 20


class Measured:
    """Exactly `size` bytes of a file, filled up with zeros where it has fewer: the tar header has announced them."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left, self.missing = file, size, 0

    def read(self, count: int) -> bytes:
        """The next bytes, never fewer than asked for before the end."""
        count = min(count, self._left)
        self._left -= count
        data = b"" if self.missing else self._file.read(count)
        self.missing += count - len(data)
        return data.ljust(count, b"\0")


def main(args: Dict[str, Any]) -> None:
    """Answers with the archive; an empty one if there is nothing."""
    files = logfiles.listing(args["deployment"], args["host"])
    say(archive=True)
    write(sys.stdout.buffer, files, args.get("max_size"))
    sys.stdout.buffer.flush()


def write(stream: IO[bytes], files: List[logfiles.LogFile], max_size: Optional[int] = None) -> None:
    """Write the files into a tar stream, one after the other, in memory of one block."""
    errors: List[Dict[str, str]] = []
    with tarfile.open(fileobj=stream, mode="w|", bufsize=BLOCK) as archive:
        for file in files:
            why = _add(archive, file, max_size)
            if why:
                errors.append({"name": file.name, "why": why})
        if errors:
            content = json.dumps(errors, indent=1).encode()
            archive.addfile(_member(ERRORS, len(content), 0o600, time.time()), io.BytesIO(content))


def _add(archive: tarfile.TarFile, file: logfiles.LogFile, max_size: Optional[int]) -> str:
    """Adds a file, and says what of it did not come."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return f"it could not be opened: {error.strerror}"
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(opened.fileno())
        size = found.st_size if max_size is None else min(found.st_size, max_size)
        opened.seek(found.st_size - size)
        content = Measured(opened, size)
        archive.addfile(_member(file.name, size, found.st_mode & 0o777, found.st_mtime), content)  # type: ignore[arg-type]
    if content.missing:
        return f"it shrank while it was read: the last {content.missing} bytes are zeros"
    return "" if size == found.st_size else f"its first {found.st_size - size} bytes were left out"


def _member(name: str, size: int, mode: int, mtime: float) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, int(mtime)
    return member
