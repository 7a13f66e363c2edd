"""Find what is on a host beside what its records say: held locks, processes of runs, other people's Ray."""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional

from flagscale_deploy.remote.deployment import lockfile, state
from flagscale_deploy.remote.system import files
from flagscale_deploy.remote.system.gpus import user_of
from flagscale_deploy.remote.system.proc import Process

if TYPE_CHECKING:
    from pathlib import Path

    from flagscale_deploy.remote.messages.probe import ProbedLeftovers, ProbedLock, ProbedRay

RAY = ("raylet", "gcs_server")
MOST = 100
"""As many are reported: any user can give processes these names."""


class Flock(NamedTuple):
    """A lock of /proc/locks that a process holds; `device` is major and minor in hexadecimal, as it stands there."""

    pid: int
    device: str
    inode: int


def observe(host: str, everyone: Iterable[Process]) -> ProbedLeftovers:
    """Return what is there beside what records say, from a scan of all processes."""
    everyone = list(everyone)
    return {"locks": locks(host), "runs": runs(everyone), "foreign_ray": foreign_ray(everyone)}


def locks(host: str) -> List[ProbedLock]:
    """Return the deployments whose lock is held for this host. Takes no lock."""
    lockers = ((path, locker(path)) for path in state.locks(host))
    return [
        {"deployment": state.name_of(path.parent.parent), "pid": pid, "holder": lockfile.holder(path)}
        for path, pid in lockers
        if pid is not None
    ]


def runs(everyone: Iterable[Process]) -> Dict[str, int]:
    """Return how many processes of our own user carry each marker; our own session is left out."""
    uid, session = os.getuid(), os.getsid(0)
    ours = (process for process in everyone if process.uid == uid and (process.sid != session or session == 0))
    return dict(
        collections.Counter(process.marker for process in ours if process.marker and process.pid != os.getpid())
    )


def foreign_ray(everyone: Iterable[Process]) -> List[ProbedRay]:
    """Return Ray's own processes that no deployment of ours started.

    They keep the environment that they were started with (Ray 2.60): our marker, where they are ours.
    """
    uid = os.getuid()
    foreign: List[ProbedRay] = [
        {"pid": process.pid, "user": user_of(process.uid), "command": process.command}
        for process in everyone
        if _program(process.command) in RAY and not (process.marker and process.uid == uid)
    ]
    return foreign[:MOST]


def parse_locks(content: str) -> List[Flock]:
    """Parse the flock(2) locks of /proc/locks (proc(5)) that are held; a line with an arrow waits for one."""
    lines = (line.split() for line in content.splitlines())
    flocks = (words for words in lines if len(words) == 8 and words[1] == "FLOCK")
    fields = ((words[4], words[5].rpartition(":")) for words in flocks)
    return [Flock(int(pid), device, int(inode)) for pid, (device, _, inode) in fields if int(pid) > 0]


def locker(path: Path) -> Optional[int]:
    """Return the pid of the process on this host that holds the lock on a file.

    On btrfs and overlayfs stat(2) reports another device than /proc/locks: there the file has to be among those that
    the process has open.
    """
    try:
        file = os.stat(str(path))
    except OSError:
        return None
    device = "%02x:%02x" % (os.major(file.st_dev), os.minor(file.st_dev))
    same = [flock for flock in parse_locks(files.read_text("/proc/locks")) if flock.inode == file.st_ino]
    return next((flock.pid for flock in same if flock.device == device or _has_open(flock.pid, file)), None)


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        descriptors = os.listdir("/proc/%d/fd" % pid)
        return any(os.path.samestat(file, os.stat("/proc/%d/fd/%s" % (pid, descriptor))) for descriptor in descriptors)
    except OSError:
        return False


def _program(command: str) -> str:
    """Return the name of the program in a command line whose path may hold blanks."""
    path = command.partition(" -")[0].strip()
    return path.rpartition("/")[2] if path.startswith("/") or " " not in path else ""
