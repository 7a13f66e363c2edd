"""The access log: one line of JSON for each request, without prompts, keys, queries or texts that a client made up."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field

LARGEST = 64 << 20
"""Bytes of the file, which is then renamed to `NAME.1`."""
log = logging.getLogger("gate")


@dataclass
class Record:
    """One request, as it is logged."""

    request: str
    """Its id."""
    client: str
    method: str
    key: str = ""
    model: str = ""
    path: str = "refused"
    status: int = 0
    sent: int = 0
    first_byte: float | None = None
    cut: str = ""
    """`client` if that went away, `server` if the reply is not whole."""
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """Return the line of the log, with times in seconds."""
        fields = {
            "time": round(time.time(), 3),
            "request": self.request,
            "client": self.client,
            "key": self.key or None,
            "method": self.method,
            "path": self.path,
            "model": self.model or None,
            "status": self.status,
            "bytes": self.sent,
            "first_byte": None if self.first_byte is None else round(self.first_byte, 6),
            "seconds": round(time.monotonic() - self.began, 6),
        }
        return json.dumps(fields | ({"cut": self.cut} if self.cut else {})) + "\n"


class AccessLog:
    """The file. It is opened again when it was moved away."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: int | None = None
        self._size = 0
        self.lost = 0
        self._open()

    def write(self, record: Record) -> None:
        """Append a line. A disk that is full loses lines, which are counted, and no request."""
        if self._path is None:
            return
        line = record.line().encode()
        try:
            if self._file is None:
                raise OSError("the access log is not open")
            self._size += os.write(self._file, line)
        except OSError:
            self.lost += 1
        if self._size > LARGEST:
            self._rotate()

    def follow(self) -> None:
        """Open the file again if it was moved, removed, or could not be opened."""
        if self._path is None:
            return
        try:
            moved = self._file is None or os.stat(self._path).st_ino != os.fstat(self._file).st_ino
        except OSError:
            moved = True
        if moved:
            self.close()
            self._open()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        if self._path is None:
            return
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            if not self.lost:
                log.warning("the access log cannot be written: %s", error)

    def _rotate(self) -> None:
        assert self._path is not None
        self.close()
        try:
            os.replace(self._path, f"{self._path}.1")
        except OSError as error:
            log.warning("the access log cannot be renamed: %s", error)
        self._open()
