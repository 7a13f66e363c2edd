"""Make directories and files for the owner alone, and read files within bounds, in places that others can write to too.

Whatever is read of a file goes through `open_regular`: not through a link unless `follow` is given, not of a FIFO or a
device, which would wait or never end, and no more than a stated number of bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import IO, TYPE_CHECKING, Iterator, Optional

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_UMASK = 0o077
LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened that is locked; whatever else has its name keeps nobody waiting."""
PSEUDO_BYTES = 64 << 20
"""The most that is read of a file in /proc or /sys: a table of the kernel, which other users can make grow."""

PIECE = 1 << 16
"""Bytes that are read at once."""

_users_umask: Optional[int] = None


def keep_private() -> None:
    """Give everything that this process and its children make from now on to the owner alone (umask 077)."""
    global _users_umask
    _users_umask = os.umask(PRIVATE_UMASK)


def leave_working_directory() -> None:
    """Work in the home directory, else in `/`: others may write where an operator works on this very machine.

    Python and other programs that we start look for modules and settings there first.
    """
    try:
        os.chdir(os.path.expanduser("~"))
    except OSError:
        os.chdir("/")


def users_umask() -> int:
    """Return the umask of this login, for what is made for others as well: directories of a pushed model."""
    if _users_umask is None:
        os.umask(current := os.umask(PRIVATE_UMASK))
        return current
    return _users_umask


def make_private_directory(path: Path, *, fresh: bool = False) -> None:
    """Make a directory and its missing parents with mode 0700. With `fresh`, raise FileExistsError if it is there."""
    for parent in reversed(path.parents):  # `mkdir(parents=True)` makes them with the mode of the umask
        if not parent.is_dir():
            parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=not fresh)


def open_own_directory(path: str) -> Optional[int]:
    """Return a descriptor of a directory of our own user, closed to all others; None where `path` is anything else.

    In a shared place another user may have made a directory, a link or a file of that name before us. What is done
    below the descriptor is done in the directory that was verified, whatever becomes of its name.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.getuid():
            if stat.S_IMODE(status.st_mode) & PRIVATE_UMASK:
                os.fchmod(descriptor, 0o700)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def write_atomically(path: Path, text: str, mode: int = 0o600, dir_fd: Optional[int] = None) -> None:
    """Write a file that has its mode from the start, and that nobody sees half written. Surrogates become bytes.

    With `dir_fd`, `path` is a name in that directory.
    """
    with _replacing(path, mode, dir_fd) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def copy_atomically(source: str, path: Path) -> None:
    """Write a file that holds what a regular one does, with its mode. Raises OSError, for a link too."""
    with open_regular(source) as file, _replacing(path, 0o600) as copied:
        while piece := file.read(PIECE):
            copied.write(piece)
        os.fchmod(copied.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))


@contextlib.contextmanager
def _replacing(path: Path, mode: int, dir_fd: Optional[int] = None) -> Iterator[IO[bytes]]:
    """Provide a new file that gets its name, and takes the place of what has it, when all is written."""
    unfinished = str(path.with_name("%s.%s.new" % (path.name, os.urandom(4).hex())))
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.replace(unfinished, str(path), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished, dir_fd=dir_fd)
        raise


def open_regular(path: str, *, follow: bool = False, dir_fd: Optional[int] = None) -> IO[bytes]:
    """Open a regular file to be read. Raises OSError for everything else, and for a link unless `follow` is given."""
    return os.fdopen(_open_regular(path, follow, dir_fd), "rb", buffering=0)


def read_start(path: str, size: int, *, follow: bool = False) -> bytes:
    """Return the first `size` bytes of a regular file, or all where it is shorter. Raises OSError."""
    return _read(_open_regular(path, follow), size)


def read_whole(path: str, limit: int, *, follow: bool = False, dir_fd: Optional[int] = None) -> bytes:
    """Return what a regular file holds. Raises OSError, also where that is more than `limit` bytes."""
    content = _read(_open_regular(path, follow, dir_fd), limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, "larger than %d bytes" % limit, path)
    return content


def read_text(path: str, errors: str = "replace") -> str:
    """Return a file of /proc or /sys, up to its last whole line within 64 MiB; "" where it cannot be read."""
    try:
        content = read_start(path, PSEUDO_BYTES)
    except OSError:
        return ""
    if len(content) == PSEUDO_BYTES:
        content = content[: content.rfind(b"\n") + 1]
    return content.decode("utf-8", errors)


def _open_regular(path: str, follow: bool, dir_fd: Optional[int] = None) -> int:
    """Return a descriptor, as `open_regular` returns a file: making that takes as long as all else of a short read."""
    links = 0 if follow else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | links, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int, size: int) -> bytes:
    """Read so many bytes at most, and close: files of /proc give a page at a time."""
    pieces = []
    try:
        while size > 0:
            piece = os.read(descriptor, min(size, PIECE))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)
