"""Measure processors, memory and disks of a host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Iterable, List, Mapping, NamedTuple, Optional

from flagscale_deploy.remote.system.files import read_text

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedCapacity, ProbedMemory

CGROUP = "/sys/fs/cgroup"
UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as the largest multiple of the page size; no host has this much memory."""


class Limit(NamedTuple):
    """A control group's memory limit and how much of it is in use, less the page cache that can be dropped. Bytes."""

    limit: int
    used: int


class Files(NamedTuple):
    """Where a version of cgroups keeps a group's memory limit."""

    base: str
    limit: str
    used: str
    droppable: str


V2 = Files(CGROUP, "memory.max", "memory.current", "inactive_file")
V1 = Files(CGROUP + "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def observe(home: str) -> ProbedCapacity:
    """Return processors, memory and disks."""
    shm = _space("/dev/shm")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        **memory(read_text("/proc/meminfo"), limits(read_text("/proc/self/cgroup"))),
        "disk_free": _space(home)["free"],
        "tmp_free": _space("/tmp")["free"],
        "shm_total": shm["total"],
        "shm_free": shm["free"],
    }


def memory(meminfo: str, groups: Iterable[Limit]) -> ProbedMemory:
    """Return the memory of the machine by /proc/meminfo, or what our control groups leave of it where that is less."""
    sizes = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[name] = int(words[0]) * 1024
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable", sizes.get("MemFree", 0))
    for group in groups:
        total = min(total, group.limit)
        available = min(available, max(0, group.limit - group.used))
    return {"memory_total": total, "memory_available": available}


def limits(membership: str) -> List[Limit]:
    """Return the memory limits that bind us, by /proc/self/cgroup: those of every group that we are in."""
    bounds = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        files = V2 if not controllers else V1 if "memory" in controllers.split(",") else None
        if files is not None:
            groups = (_limit(files, level) for level in _upwards(path))
            bounds += [group for group in groups if group is not None]
    return bounds


def _upwards(path: str) -> List[str]:
    """Return a group and those that it is in: `/a/b` is in `/a`, which is in the root group."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _limit(files: Files, group: str) -> Optional[Limit]:
    directory = os.path.join(files.base, group)
    limit, used = (read_text(os.path.join(directory, name)) for name in (files.limit, files.used))
    if not limit.strip().isdigit() or int(limit) >= UNLIMITED:
        return None
    droppable = _fields(read_text(os.path.join(directory, "memory.stat"))).get(files.droppable, 0)
    return Limit(int(limit), max(0, int(used or 0) - droppable))


def _fields(content: str) -> Mapping[str, int]:
    pairs = (line.split() for line in content.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _space(path: str) -> Dict[str, int]:
    """Return the size of the file system that holds a path, and what a user may still fill; 0 where there is none."""
    try:
        status = os.statvfs(path)
    except OSError:
        return {"total": 0, "free": 0}
    return {"total": status.f_blocks * status.f_frsize, "free": status.f_bavail * status.f_frsize}
