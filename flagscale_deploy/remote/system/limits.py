"""Find what a user may do on a host: open files, lock memory, write, see other users' processes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import TYPE_CHECKING, Iterable, List

from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedLimits

NO_SUCH_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What open(2) says where a file system (NFS) or a kernel has no files without a name."""


def observe(home: str) -> ProbedLimits:
    """Return what our user may do."""
    return {
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "locked_memory": resource.getrlimit(resource.RLIMIT_MEMLOCK)[1],
        "unwritable": unwritable((home, "/tmp", "/dev/shm")),
        "sees_everyone": sees_everyone(),
    }


def unwritable(directories: Iterable[str]) -> List[str]:
    """Return those of some directories in which no file can be made.

    It is tried, for access(2) knows nothing of what an NFS server permits. Nothing is left there.
    """
    return [directory for directory in directories if not _makes_files(directory)]


def sees_everyone() -> bool:
    """Return whether /proc shows us the processes of other users."""
    if os.getuid() == 0:
        return True
    if not files.read_text("/proc/1/stat"):
        return False
    return not hides(files.read_text("/proc/self/mounts"), [os.getegid(), *os.getgroups()])


def hides(mounts: str, groups: Iterable[int]) -> bool:
    """Return whether /proc is mounted with `hidepid`, and none of our groups is its `gid` (proc(5))."""
    proc = [fields[3] for fields in map(str.split, mounts.splitlines()) if fields[1:3] == ["/proc", "proc"]]
    options = dict(option.partition("=")[::2] for option in (proc[-1].split(",") if proc else ()))
    return options.get("hidepid", "0") not in ("0", "off") and options.get("gid", "0") not in map(str, groups)


def _makes_files(directory: str) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600))
        return True
    except OSError as error:
        if error.errno not in NO_SUCH_FILES:
            return False
    path = os.path.join(directory, ".flagscale-deploy-%s" % os.urandom(8).hex())
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.unlink(path)
    return True
