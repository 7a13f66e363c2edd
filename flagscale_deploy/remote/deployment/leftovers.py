"""What is on a host beside what its records say: locks that are held, processes of runs, Ray of other people."""

from __future__ import annotations

import collections
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional
from urllib.parse import unquote

from flagscale_deploy.remote.deployment import lockfile, state
from flagscale_deploy.remote.system import files
from flagscale_deploy.remote.system.gpus import user_of
from flagscale_deploy.remote.system.proc import Process

RAY = ("raylet", "gcs_server")


class Flock(NamedTuple):
    """A lock of /proc/locks that a process holds; `device` is major and minor in hexadecimal, as it stands there."""

    pid: int
    device: str
    inode: int


def observe(host: str, everyone: Iterable[Process]) -> Dict[str, Any]:
    """`locks`, `runs` and `foreign_ray` of `observation.Facts`, from a scan of all processes."""
    everyone = list(everyone)
    return {"locks": locks(host), "runs": runs(everyone), "foreign_ray": foreign_ray(everyone)}


def locks(host: str) -> List[Dict[str, Any]]:
    """The deployments whose lock is held for this host, in the shape of `observation.HeldLock`. Takes no lock."""
    found = ((path, locker(path)) for path in state.locks(host))
    return [
        {"deployment": unquote(path.parent.parent.name), "pid": pid, "holder": lockfile.holder(path)}
        for path, pid in found
        if pid is not None
    ]


def runs(everyone: Iterable[Process]) -> Dict[str, int]:
    """How many processes of our own user carry each marker; whoever asks is none of them."""
    uid, session = os.getuid(), os.getsid(0)
    ours = (each for each in everyone if each.uid == uid and (each.sid != session or session == 0))
    return dict(collections.Counter(each.marker for each in ours if each.marker and each.pid != os.getpid()))


def foreign_ray(everyone: Iterable[Process]) -> List[Dict[str, Any]]:
    """Ray's own processes that no deployment of ours started, in the shape of `observation.ForeignRay`.

    They keep the environment that they were started with (Ray 2.60): our marker, where they are ours.
    """
    uid = os.getuid()
    return [
        {"pid": each.pid, "user": user_of(each.uid), "command": each.command}
        for each in everyone
        if _program(each.command) in RAY and not (each.marker and each.uid == uid)
    ]


def parse_locks(content: str) -> List[Flock]:
    """Reads the flock(2) locks of /proc/locks (proc(5)) that are held; a line with an arrow waits for one."""
    lines = (line.split() for line in content.splitlines())
    flocks = (words for words in lines if len(words) == 8 and words[1] == "FLOCK")
    found = ((words[4], words[5].rpartition(":")) for words in flocks)
    return [Flock(int(pid), device, int(inode)) for pid, (device, _, inode) in found if int(pid) > 0]


def locker(path: Path) -> Optional[int]:
    """The pid of the process on this host that holds the lock on a file.

    On btrfs and overlayfs stat(2) tells another device than /proc/locks: there the file has to be among those that the
    process has open.
    """
    try:
        file = os.stat(str(path))
    except OSError:
        return None
    device = "%02x:%02x" % (os.major(file.st_dev), os.minor(file.st_dev))
    same = [each for each in parse_locks(files.read_text("/proc/locks")) if each.inode == file.st_ino]
    return next((each.pid for each in same if each.device == device or _has_open(each.pid, file)), None)


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        descriptors = os.listdir("/proc/%d/fd" % pid)
        return any(os.path.samestat(file, os.stat("/proc/%d/fd/%s" % (pid, each))) for each in descriptors)
    except OSError:
        return False


def _program(command: str) -> str:
    """The name of the program in a command line whose path may hold blanks."""
    path = command.partition(" -")[0].strip()
    return path.rpartition("/")[2] if path.startswith("/") or " " not in path else ""
