"""Read known_hosts files: plain names, patterns, hashed names, and the marks `@revoked` and `@cert-authority`."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from flagscale_deploy.support.input_files import read_bytes

LARGEST = 64 << 20


class Lines:
    """Lines of a file with their places in it: by each plain name, and those with patterns or hashed names."""

    def __init__(self) -> None:
        self._plain: dict[str, list[tuple[int, str]]] = {}
        self._others: list[tuple[int, str]] = []

    def add(self, at: int, line: str) -> None:
        """Take a line `names type key`, without its mark."""
        names = line.partition(" ")[0].lower()
        if any(special in names for special in "*?!|"):
            self._others.append((at, line))
        else:
            for name in names.split(","):
                self._plain.setdefault(name, []).append((at, line))

    def keys_of(self, name: str) -> Iterator[tuple[int, paramiko.PKey]]:
        """Return the keys of a name, in their order. A broken line is ignored, as in OpenSSH."""
        others = (line for line in self._others if is_among(name, line[1].partition(" ")[0]))
        for at, line in sorted([*self._plain.get(name.lower(), []), *others]):
            with suppress(paramiko.SSHException, InvalidHostKey):
                entry = HostKeyEntry.from_line(line)
                if entry is not None and entry.key is not None:
                    yield at, entry.key


class KnownHosts(NamedTuple):
    """The lines of a file: those without a mark, `@revoked`, and `@cert-authority`."""

    trusted: Lines
    revoked: Lines
    authorities: Lines


def read_known_hosts(path: Path) -> KnownHosts:
    """Return the lines of a file, which is read anew when it has changed. Raises OSError, InputError.

    Paramiko's own reading grows with the square of the file: 1000 lines took 0.34 s of CPU for each connection.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _read(path: Path, _modified: int, _size: int) -> KnownHosts:
    file = KnownHosts(Lines(), Lines(), Lines())
    marks = {"@revoked": file.revoked, "@cert-authority": file.authorities}
    for at, text in enumerate(lines_of(path)):
        line = " ".join(text.split())
        mark, _, rest = line.partition(" ")
        if mark in marks:
            marks[mark].add(at, rest)
        elif line and line[0] not in "#@":
            file.trusted.add(at, line)
    return file


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file. Raises InputError for one that is no regular file, or too large."""
    return read_bytes(path, LARGEST, pipes=False).decode(errors="replace").splitlines()


def is_among(name: str, names: str) -> bool:
    """Return whether a name is one of those before a key: plain, a pattern, or hashed."""
    if names.startswith("|1|"):
        with suppress(ValueError, AssertionError):  # a salt that is none
            return paramiko.HostKeys.hash_host(name, names) == names
        return False
    patterns = names.lower().split(",")
    if any(pattern.startswith("!") and _fits(name, pattern[1:]) for pattern in patterns):
        return False
    return any(_fits(name, pattern) for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    """Return whether a name fits a pattern, which has `*` and `?` only; brackets are those of `[address]:port`."""
    return fnmatch.fnmatchcase(name.lower(), pattern.replace("[", "[[]"))
