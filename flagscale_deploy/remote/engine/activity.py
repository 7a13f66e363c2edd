"""Measure whether processes make progress: CPU time that they use, and bytes that they read."""

from __future__ import annotations

import os
import time
from typing import Dict, Iterable, List, Optional, Tuple

from flagscale_deploy.remote.system import files
from flagscale_deploy.remote.system.proc import Identity, Process

BUSY = 0.05
"""The part of a core above which a process works. A process that waits wakes up now and then, for much less."""
READ_BYTES = 64 << 10
"""Bytes a second above which it reads: a mapped file shows in `read_bytes`, any other in `rchar` (proc(5))."""
TICKS = float(os.sysconf("SC_CLK_TCK"))


class Activity:
    """How long a group of processes has been still. A process that is new has read."""

    def __init__(self) -> None:
        self._read = self._worked = self._looked = time.monotonic()
        self._used: Dict[Identity, Tuple[int, int]] = {}
        self.stopped: List[int] = []
        """Those of them that are stopped (SIGSTOP, a debugger) or wait for a disk, at the last look."""

    def look(self, processes: Iterable[Process]) -> Tuple[float, float]:
        """Return the seconds since one of them has read, and since one has used CPU time."""
        now = time.monotonic()
        seconds, self._looked = now - self._looked, now
        used, self.stopped = {}, []
        for process in processes:
            seen = usage(process)
            if seen is None:
                continue
            state, ticks, read = seen
            used[process.identity] = ticks, read
            if state in "DTt":
                self.stopped.append(process.pid)
            before = self._used.get(process.identity)
            if before is None or read - before[1] > READ_BYTES * max(seconds, 1.0):
                self._read = now
            if before is None or ticks - before[0] > BUSY * TICKS * seconds:
                self._worked = now
        self._used = used
        return now - self._read, now - self._worked


def usage(process: Process) -> Optional[Tuple[str, int, int]]:
    """Return state, CPU time in clock ticks and bytes read by now; None once the process is gone.

    Bytes are 0 where they may not be seen.
    """
    try:
        fields = files.read_start("/proc/%d/stat" % process.pid, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    if int(fields[19]) != process.start_ticks:
        return None
    return fields[0].decode(), int(fields[11]) + int(fields[12]), _read(process.pid)


def _read(pid: int) -> int:
    try:
        numbers = dict(line.split(b": ") for line in files.read_start("/proc/%d/io" % pid, 4096).splitlines())
        return int(numbers[b"rchar"]) + int(numbers[b"read_bytes"])
    except (OSError, ValueError, KeyError):
        return 0
