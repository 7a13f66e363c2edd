"""Find and remove the shared memory that our processes leave behind: files of /dev/shm that outlive their makers.

vLLM's queues between engine and workers (`psm_*`), semaphores (`sem.*`) and NCCL's buffers (`nccl-*`) are such files.
Their names don't say whose they are; the memory maps of the processes that use them do, and only while those live. So
they are noted before anything is ended, and in the record when an engine is ready: one that crashes later leaves them
with nobody (measured: killing a rank of vLLM 0.32 leaves the queue of another).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple

from flagscale_deploy.remote.deployment import processes, record
from flagscale_deploy.remote.system.files import read_text
from flagscale_deploy.remote.system.proc import Process, scan

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

ROOT = "/dev/shm"
NOTE_SECONDS, HOLDERS_SECONDS = 5.0, 15.0

File = Tuple[int, int]
"""Device and inode: the file itself, which another one of the same name, or in a container's /dev/shm, is not."""


class Mapping(NamedTuple):
    """A line of `/proc/PID/maps` (proc(5)) that has a file. `permissions` are like `rw-s`."""

    permissions: str
    file: File
    path: str

    @property
    def writable_by_all(self) -> bool:
        """Return whether what this process writes is seen by all processes that map the file."""
        return self.permissions[1] == "w" and self.permissions[3] == "s"


class Segments:
    """The segments that processes of ours were seen to share, from the record `known` on."""

    def __init__(self, deployed: Record) -> None:
        of_this_boot = deployed.get("boot_id") == record.boot_id()
        noted = deployed.get("segments") or {} if of_this_boot else {}
        self._noted: Dict[str, File] = {path: (file[0], file[1]) for path, file in noted.items() if len(file) == 2}

    def note(self, family: Iterable[Process], seconds: float = NOTE_SECONDS) -> None:
        """Note what these processes write together: shared writable maps of files right in /dev/shm.

        (`shm_open` makes no others.) Weights that somebody keeps in /dev/shm are mapped to be read, and stay. Processes
        that are not read within `seconds` are left out: GPUs wait for this.
        """
        end = time.monotonic() + seconds
        for process in family:
            if time.monotonic() > end:
                break
            for mapping in mappings(process.pid):
                if mapping.writable_by_all and os.path.dirname(mapping.path) == ROOT:
                    self._noted[mapping.path] = mapping.file

    def noted(self) -> Dict[str, List[int]]:
        """Return path to device and inode, as the record keeps them."""
        return {path: list(file) for path, file in self._noted.items()}

    def remove(self) -> int:
        """Remove those noted that are still there; return their number.

        Left alone are those of another user, and those that are mapped or open anywhere.
        """
        left = {path: file for path, file in self._noted.items() if _is_own(path, file)}
        if not left:
            return 0
        held = holders(set(left.values()))
        free = [path for path, file in left.items() if file not in held]
        return sum(_unlink(path) for path in free)


def remember(deployment: str, host: str) -> None:
    """Note the segments of the living deployment in its record."""
    deployed = record.read(deployment, host) or {}
    segments = Segments(deployed)
    segments.note(processes.ours(scan(), f"{deployment}/", processes.recorded(deployed)))
    record.update(
        deployment, host, lambda before: {**before, "segments": {**before.get("segments", {}), **segments.noted()}}
    )


def mappings(pid: int) -> Iterator[Mapping]:
    """Return what a process has mapped that has a path; nothing if it has ended or isn't ours to look at."""
    for line in read_text(f"/proc/{pid}/maps", "surrogateescape").split("\n"):
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            major, minor = fields[3].split(":")
            file = os.makedev(int(major, 16), int(minor, 16)), int(fields[4])
            yield Mapping(fields[1], file, fields[5])


def holders(files: Set[File]) -> Set[File]:
    """Return those of the files that some process of this host has mapped or open; all where that takes too long."""
    held: Set[File] = set()
    end = time.monotonic() + HOLDERS_SECONDS
    for process in scan():
        if time.monotonic() > end:
            return files
        held.update(mapping.file for mapping in mappings(process.pid))
        held.update(_open_files(process.pid))
    return held & files


def _is_own(path: str, file: File) -> bool:
    """Return whether this very file is there and ours. Where others may open it, only root sees whether they do."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    seen_by_all = os.getuid() == 0 or not stat.S_IMODE(status.st_mode) & 0o077
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()
    return own and seen_by_all and (status.st_dev, status.st_ino) == file


def _open_files(pid: int) -> List[File]:
    files = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                files.append((status.st_dev, status.st_ino))
    return files


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
