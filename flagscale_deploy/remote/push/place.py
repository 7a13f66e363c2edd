"""Decide where a tree may be put, and open its files without following symbolic links."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterator, List, Tuple

from flagscale_deploy.remote.system.files import users_umask

SYSTEM = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt",
    "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/usr/share", "/var",
    "/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp",
)  # fmt: skip
"""Directories that belong to more than a model."""
WITHIN = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
"""Directories with no place for a model anywhere below them, except for those in `EXCEPT`."""
EXCEPT = ("/usr/local/", "/usr/share/", "/dev/shm/")
MOST_LINKS = 40
"""Linux follows no more in one path (path_resolution(7))."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PASSAGE = DIRECTORY | getattr(os, "O_PATH", 0)
"""To go through a directory, or make something in it, which need not be readable. The operator may lack O_PATH."""


def refused(dest: str, home: str = "") -> str:
    """Return why a tree must not be put there, "" if it may; `dest` is absolute and normal."""
    if dest in SYSTEM or dest == home:
        return "%s is not a directory for one model; give one below it" % dest
    if dest.startswith(tuple(directory + "/" for directory in WITHIN)) and not dest.startswith(EXCEPT):
        return "%s belongs to the system" % dest
    return ""


def root_of(dest: str, single: bool) -> Tuple[bytes, str]:
    """Return the real directory for the entries, and why they must not go there ("" if they may).

    `dest` is as the user wrote it; for a single file, the directory is its parent.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    part = part_of_another_user(os.path.normpath(os.path.expanduser(dest)))
    if part:
        above = os.path.dirname(part)
        return b"", "%s is another user's, and everybody may write to %s: name another directory" % (part, above)
    real = os.path.realpath(os.path.expanduser(dest))
    if single:
        parent = os.path.realpath(os.path.dirname(os.path.normpath(os.path.expanduser(dest))))
        return os.fsencode(parent), refused(os.path.join(parent, os.path.basename(real)), home)
    return os.fsencode(real), refused(real, home)


def part_of_another_user(path: str) -> str:
    """Return the first directory or link on the way to a path that another user may have put there, "" if none is.

    That is one in a directory that everybody may write to, and neither ours, nor root's, nor its directory's owner's.
    """
    at, names, links = "/", path.split("/")[::-1], 0
    while names:
        name = names.pop()
        below = os.path.join(at, name)
        try:
            above, status = os.stat(at), os.lstat(below)
        except (OSError, ValueError):  # not there
            return ""
        is_open = bool(above.st_mode & stat.S_IWOTH)
        if is_open and status.st_uid not in (0, os.geteuid(), above.st_uid) and status.st_uid != _own_uid(at):
            return below
        if stat.S_ISLNK(status.st_mode) and links < MOST_LINKS:
            target, links = os.readlink(below), links + 1
            names += target.split("/")[::-1]
            below = "/" if target.startswith("/") else at
        at = os.path.normpath(below)
    return ""


def _own_uid(directory: str) -> int:
    """Return whom our new files in a directory belong to: NFS may make that another than we are. -1: we make none."""
    name = os.path.join(directory, ".%s.new" % os.urandom(8).hex())
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        os.unlink(name)
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)


def open_root(path: bytes, flags: int = DIRECTORY) -> int:
    """Return a descriptor of a real directory, following no link that was put in its way. Raises OSError."""
    *above, name = path.split(b"/")
    at = os.open(b"/", PASSAGE)
    for part in filter(None, above):
        at = _enter(at, part, PASSAGE)
    return _enter(at, name or b".", flags)


def make_directories(path: bytes, mode: int) -> List[bytes]:
    """Make a directory with a mode, and its missing parents as others; return those made, the outermost first.

    Raises OSError.
    """
    missing: List[bytes] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for number, directory in enumerate(reversed(missing), 1):
        at = open_root(os.path.dirname(directory), PASSAGE)
        try:
            os.mkdir(os.path.basename(directory), 0o700, dir_fd=at)
            made = os.open(os.path.basename(directory), DIRECTORY, dir_fd=at)
            os.fchmod(made, 0o755 & ~users_umask() if number < len(missing) else mode)
            os.close(made)
        finally:
            os.close(at)
    return missing[::-1]


def open_private(root: int, name: bytes) -> int:
    """Return a descriptor of a directory that is ours alone, made if it is missing. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=root)
    descriptor = os.open(name, DIRECTORY, dir_fd=root)
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError("%s there belongs to another user: have it removed" % os.fsdecode(name))
    os.fchmod(descriptor, 0o700)
    return descriptor


@contextlib.contextmanager
def parent_of(root: int, path: bytes, make: bool = False) -> Iterator[Tuple[int, bytes]]:
    """Yield a descriptor of a path's directory, and the path's last part. No link below `root` is followed.

    With `make`, missing directories are made; a link in the place of a directory is replaced, as rsync does. Raises
    OSError.
    """
    *above, name = path.split(b"/")
    at = os.dup(root)
    try:
        for part in above:
            if make:
                _make(at, part)
            inner = os.open(part, DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
        yield at, name
    finally:
        os.close(at)


def open_below(root: int, path: bytes, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a file. Raises OSError, also if a link is in the way."""
    with parent_of(root, path) as (at, name):
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=at)


def make_directory(root: int, path: bytes) -> None:
    """Make a directory below `root` unless it exists. Raises OSError."""
    with parent_of(root, path, make=True) as (at, name):
        _make(at, name)


def _make(at: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=at)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)  # until all is there


def _enter(at: int, name: bytes, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)
