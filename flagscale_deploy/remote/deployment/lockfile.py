"""Read and write the lock file of a deployment: who holds it, since when."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Optional, cast

from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.system import files, json_files, proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.stop import Displacement, LockHolder, LockIdentity

HELD = (errno.EWOULDBLOCK, errno.EACCES)

_SHAPE = {
    "who": str, "what": str, "since": str, "heard": str, "from": str, "boot_id": str, "pid": int,
    "start_ticks": (int, type(None)),
}  # fmt: skip


class UnusableError(Exception):
    """Where no lock can be had at all."""


def identity() -> LockIdentity:
    """Return who holds a lock, as the kernel of this host knows it, and where the command comes from."""
    me = proc.find(os.getpid())
    return {
        "from": os.environ.get("SSH_CLIENT", "").partition(" ")[0],
        "pid": os.getpid(),
        "start_ticks": me.start_ticks if me else None,
        "boot_id": record.boot_id(),
    }


def write(descriptor: int, holder: LockHolder) -> None:
    """Write the holder and the current monotonic time to the lock file."""
    # The time has a fixed width: who reads while it is written anew reads one of the two.
    text = json.dumps({**holder, "heard": "%015.3f" % time.monotonic()}).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def take(path: Path) -> Optional[int]:
    """Return a descriptor that holds the lock, or None where another process has it.

    A file that was removed meanwhile locks nothing. Raises UnusableError where no file can be made or locked there.
    """
    try:
        files.make_private_directory(path.parent)
        descriptor = os.open(str(path), files.LOCK, 0o600)
    except FileNotFoundError:
        return None  # its holder has just removed it, and the directory
    except OSError as error:
        raise UnusableError("%s: %s" % (error.filename or path, error.strerror)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnusableError("%s: not a regular file" % path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(str(path))):
            return descriptor
    except FileNotFoundError:
        pass  # its holder has just removed it
    except OSError as error:
        if error.errno not in HELD:
            os.close(descriptor)
            kind = filesystem(path)
            raise UnusableError("%s, on %s, cannot be locked: %s" % (path, kind, error.strerror)) from None
    os.close(descriptor)
    return None


def leave(directory: Path, descriptor: int) -> None:
    """Release the lock. Where nothing was recorded under it, nothing of it stays."""
    ours = _is_at(descriptor, directory / "lock")
    os.ftruncate(descriptor, 0)
    if ours and not (directory / "record.json").exists():
        with contextlib.suppress(OSError):
            os.unlink(str(directory / "lock"))
            for folder in (directory, directory.parent, directory.parent.parent):
                os.rmdir(str(folder))
    os.close(descriptor)


def holder(path: Path) -> LockHolder:
    """Return who wrote the lock file; empty while they have not yet, and where it is broken."""
    try:
        content = json_files.read_object(str(path))
    except (OSError, ValueError):
        return {}
    return {} if json_files.mismatch(content, _SHAPE) else cast("LockHolder", content)


def displacement(directory: Path) -> Displacement:
    """Return who has ended this with `unlock`, as noted beside the lock; empty after a mere SIGTERM."""
    path = directory / "unlocked.json"
    by = holder(path)
    with contextlib.suppress(OSError):
        os.unlink(str(path))
    return cast("Displacement", by)


def silent_for(holder: LockHolder) -> Optional[float]:
    """Return for how many seconds the holder's operator has not been heard; None where the file does not say."""
    try:
        return max(0.0, time.monotonic() - float(holder["heard"])) if holder["boot_id"] == record.boot_id() else None
    except (KeyError, TypeError, ValueError):
        return None


def filesystem(path: Path) -> str:
    """Return the type of the file system that a path lies on, "" where it is unknown."""
    real = os.path.realpath(str(path))
    mounts = [line.split() for line in files.read_text("/proc/self/mountinfo").split("\n") if line]
    best = ("", "")
    for words in mounts:
        point = words[4].encode().decode("unicode_escape")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, words[words.index("-") + 1])
    return best[1]


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
    except OSError:
        return False
