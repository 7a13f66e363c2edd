"""Hold the log files of a moment open, whatever rotation calls them."""

from __future__ import annotations

import errno
import os
import resource
from typing import Dict, List, NamedTuple, Optional, Tuple

from flagscale_deploy.remote.logs import logfiles
from flagscale_deploy.remote.system import files

ROUNDS = 5
"""A file may be renamed between the listing and its opening: it is listed again until nothing new is found."""
Key = Tuple[int, int]


class Pinned(NamedTuple):
    """A file that is held open.

    `descriptor` is None where no more files may be open, `why` is what keeps it from being read, `size` is what it had
    in bytes.
    """

    name: str
    path: str
    descriptor: Optional[int]
    why: str = ""
    size: int = 0


def pin(deployment: str, host: str) -> List[Pinned]:
    """Open every log file that there is, each once, under the name that it was found with last."""
    allow_many_files()
    held: Dict[Key, Pinned] = {}
    for _ in range(ROUNDS):
        fresh, failed = False, []
        for file in logfiles.listing(deployment, host):
            try:
                fresh = _hold(held, file) or fresh
            except OSError as error:
                if error.errno == errno.EMFILE:
                    failed.append(Pinned(file.name, file.path, None))
                else:
                    why = error.strerror or str(error)
                    failed.append(Pinned(file.name, file.path, None, f"it could not be opened: {why}"))
        if not fresh:
            break
    return _named_once(list(held.values())) + failed


def opened(file: Pinned) -> int:
    """Return its descriptor. Raises OSError."""
    return open_log(file.path) if file.descriptor is None else file.descriptor


def open_log(path: str) -> int:
    """Return a descriptor of a log file. Raises OSError where the path is anything else by now, a FIFO for one."""
    with files.open_regular(path) as file:
        return os.dup(file.fileno())


def allow_many_files() -> None:
    """Raise the limit of open files: a large Ray session has more log files than the usual 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _hold(held: Dict[Key, Pinned], file: logfiles.LogFile) -> bool:
    """Hold a file open; return whether it is new."""
    descriptor = open_log(file.path)
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino)
    earlier = held.pop(key, None)
    if earlier is not None:
        os.close(descriptor)
        descriptor = earlier.descriptor  # type: ignore[assignment]  # those that are held are open
    held[key] = Pinned(file.name, file.path, descriptor, "", status.st_size)  # behind those whose names are older
    return earlier is None


def _named_once(pinned: List[Pinned]) -> List[Pinned]:
    """Give the older of two files that had one name, one after the other, a name of its own."""
    named: Dict[str, Pinned] = {}
    for file in reversed(pinned):
        name, number = file.name, 0
        while name in named:
            number += 1
            name = f"{file.name}.rotated-{number}"
        named[name] = file._replace(name=name)
    return sorted(named.values())
