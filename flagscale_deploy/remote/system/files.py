"""Directories and files for the owner alone, whatever the umask is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def make_private_directory(path: Path, *, fresh: bool = False) -> None:
    """Make a directory and its missing parents with mode 0700. With `fresh`, raise FileExistsError if it is there."""
    for parent in reversed(path.parents):  # `mkdir(parents=True)` makes them with the mode of the umask
        if not parent.is_dir():
            parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=not fresh)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that has its mode from the start, and that nobody sees half written. Surrogates become bytes."""
    unfinished = path.with_name("%s.%s.new" % (path.name, os.urandom(4).hex()))
    descriptor = os.open(str(unfinished), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        os.replace(str(unfinished), str(path))
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def read_text(path: str) -> str:
    """Return a file's text as ASCII, "" where it cannot be read: /proc and /sys have files that come and go."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
