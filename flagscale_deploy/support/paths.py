"""Names, directories and files on the operator's disk."""

from __future__ import annotations

import errno
import os
import re
import stat
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.remote.system.files import make_private_directory, open_own_directory, write_atomically
from flagscale_deploy.support.planted import refuse_planted_output
from flagscale_deploy.support.platform import path_of_descriptor
from flagscale_deploy.support.quote import quoted


def make_directory(path: Path, remedy: str = "", *, fresh: bool = False) -> None:
    """Make a directory and its parents, readable by their owner only; `fresh`: it must not exist yet.

    Raises InputError where that is not possible.
    """
    try:
        make_private_directory(path, fresh=fresh)
    except OSError as error:
        raise InputError.at(str(path), f"cannot be made: {error.strerror}", remedy) from error


def refuse_unwritable(path: Path, what: str) -> None:
    """Raise InputError if no file can be written there, before any work is done; leave none behind.

    An earlier one is removed: it would be taken for this command's, if that cannot write its own.
    """
    with _errors_of(path, what):
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not _is_stream(path):
            refuse_planted_output(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            probe = path.with_name(f".{os.urandom(8).hex()}.new")  # a name that nobody else can have taken
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            probe.unlink()
            path.unlink(missing_ok=True)


def write_file(path: Path, text: str, what: str, remedy: str = "") -> None:
    """Write a file in place of what has its name: a link there leads nowhere. Raises InputError.

    /dev/stdout and its like are written to.
    """
    with _errors_of(path, what, remedy):
        if _is_stream(path):
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)


class Held:
    """A folder of the user's own, to be written to by `path` until `close`, whatever takes its name meanwhile.

    Whoever owns a folder above it can put a link in its place. (macOS has no such path: there it is the name.)
    """

    def __init__(self, folder: Path) -> None:
        """Raise InputError where it is a link, another user's, or not there."""
        descriptor = open_own_directory(str(folder))
        if descriptor is None:
            raise InputError.at(str(folder), "is no folder of yours, or a link", "name another folder")
        self._close = weakref.finalize(self, os.close, descriptor)
        self._folder = folder
        self.path = path_of_descriptor(descriptor) or folder

    def close(self) -> None:
        """Let go of the folder: from now on `path` is its name."""
        self.path = self._folder
        self._close()


def write_folder(folder: Path, files: Mapping[str, str], mode: int) -> list[Path]:
    """Write files, by name, into a folder of the user's own. Raises InputError, also where a link has its name."""
    with _errors_of(folder, "scripts"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_own_directory(str(folder))
        if descriptor is None:
            raise InputError.at(str(folder), "is no folder of yours, or a link", "name another folder")
        try:
            for name, text in files.items():
                write_atomically(Path(name), text, mode, dir_fd=descriptor)
        finally:
            os.close(descriptor)
    return [folder / name for name in files]


@contextmanager
def _errors_of(path: Path, what: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError.at(str(path), f"{what} cannot be written there: {error.strerror}", remedy) from error


def _is_stream(path: Path) -> bool:
    """Return whether a path is one of this process's streams, a device or a pipe of the user's, and no link to one."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    pipe = stat.S_ISFIFO(status.st_mode) and status.st_uid == os.getuid()  # another user's may have no reader, ever
    return _STREAM.fullmatch(str(path)) is not None or stat.S_ISCHR(status.st_mode) or pipe


_STREAM = re.compile(r"/dev/(?:stdout|stderr|fd/\d{1,9})|/proc/self/fd/\d{1,9}")


DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""It is part of paths, of names of processes and of marks in their environment."""


def deployment_name_fault(name: str, where: str) -> list[Fault]:
    """Return the fault of a name that no deployment can have."""
    if DEPLOYMENT_NAME.fullmatch(name):
        return []
    remedy = "letters, digits, '.', '_' and '-', a letter or digit first, 63 at most; or pass --name"
    return [Fault(where, f"{quoted(name)} cannot name a deployment", remedy)]


def safe_name(host: str) -> str:
    """Return a host's name as the name of a folder: one that never leads elsewhere, and that no two hosts share."""
    return re.sub(r"[/%\x00-\x1f]|^\.", lambda match: f"%{ord(match[0]):02X}", host) or "%"
