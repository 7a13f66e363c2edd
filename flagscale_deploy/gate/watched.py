"""Files that may change while the gate runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flagscale_deploy.gate.config import ConfigError

LARGEST = 4 << 20


class Watched:
    """One file, read again when its time, size or inode has changed."""

    def __init__(self, path: str, *, private: bool = False) -> None:
        self.path = Path(path)
        self._private = private
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Return whether it is another than when it was read last; a file that is not there has not changed."""
        try:
            return _signature(self.path.stat()) != self._seen
        except OSError:
            return False

    @property
    def version(self) -> str:
        """Return which version of it was read last: `route_gate` makes the same text of the file that lies there."""
        return "-".join(map(str, self._seen or ()))

    def read(self) -> str:
        """Return its text. Raise ConfigError where it cannot be read, or others than its owner may read a secret."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                self._seen = _signature(status)
                content = file.read(LARGEST + 1)
            text = content.decode()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path}: {error}") from error
        if len(content) > LARGEST:
            raise ConfigError(f"{self.path}: is larger than {LARGEST} bytes")
        if self._private and stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigError(f"{self.path}: others may read it; its mode has to be 0600")
        return text

    def again(self) -> None:
        """Take it for changed until it is read again."""
        self._seen = None


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
