"""Name the directories and files of a deployment on a host. One directory a host: a shared home must not collide.

`pathlib` and `urllib.parse` take 5 of the 37 ms of CPU that `ps` costs a host: they are imported when first used.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, List

if TYPE_CHECKING:
    from pathlib import Path

ROOT = ".flagscale-deploy"


def exists() -> bool:
    """Return whether there is anything of a deployment: on most hosts of an inventory there is nothing."""
    try:
        os.lstat(os.path.join(os.path.expanduser("~"), ROOT))
    except FileNotFoundError:
        return False
    return True


def root() -> Path:
    """Return `~/.flagscale-deploy`, by $HOME as a login shell has it.

    Raises PermissionError where another user has made it: a home directory need not be closed to others. One of our
    own that is open to others is closed: whoever may read it, may hold the lock on it.
    """
    path = root_of(os.path.expanduser("~"))
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if status.st_uid not in (os.getuid(), path.parent.stat().st_uid):  # the latter: NFS maps users to another
            raise PermissionError("%s belongs to another user (uid %d): remove it" % (path, status.st_uid))
        if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o700)
    return path


def root_of(home: str) -> Path:
    """Return the directory that a user with this home has for deployments."""
    from pathlib import Path

    return Path(home) / ROOT


def reservation_lock() -> Path:
    """Return the lock file of this host and user for `reserve`.

    It is in the home directory, where no other user can take its name, as in /tmp. Records lie there too: runs that
    see each other's records share the lock. On a home that hosts share (NFS) every host has its own, by the name that
    it has for itself, as records have it (`machine`). Other than names of deployments it has an @, which those lose.
    """
    return root() / ("@reserve-%s" % file_name(os.uname().nodename))


def directory(deployment: str, host: str) -> Path:
    """Return the state directory of a deployment on a host; `host` is the inventory name.

    Both are made safe as file names. Raises ValueError for a name that no file can have: what is removed later must
    never lie outside `root()`.
    """
    return root() / file_name(deployment) / file_name(host)


def every_record() -> List[Path]:
    """Return the record of every deployment under any name of a host, also of others that share the home."""
    return sorted(root().glob("*/*/record.json"))


def records(host: str) -> List[Path]:
    """Return the record of every deployment that was recorded for this host."""
    return sorted(root().glob("*/%s/record.json" % file_name(host)))


def locks(host: str) -> List[Path]:
    """Return the lock files of deployments on this host, held or not."""
    return sorted(root().glob("*/%s/lock" % file_name(host)))


def file_name(name: str) -> str:
    """Return a name as that of a file, never a way out of its folder. Raises ValueError where no file can have it."""
    from urllib.parse import quote

    safe = quote(name, safe="")
    if safe in ("", ".", ".."):
        raise ValueError("%r cannot be used as a name" % name)
    return safe


def name_of(path: Path) -> str:
    """Return the name that a file or directory was named after, as `file_name` does it."""
    from urllib.parse import unquote

    return unquote(path.name)
