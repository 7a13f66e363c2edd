"""Find and reap the descendants of this process, orphans included."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import AbstractSet, Dict, Iterable, List, Optional, Sequence

from flagscale_deploy.remote.deployment.processes import Family
from flagscale_deploy.remote.system.proc import Identity, Process

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2)."""


def adopt_orphans() -> None:
    """Become the parent of whatever a dead server leaves behind, also of processes in sessions of their own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Descendants(Family):
    """The descendants of this process: with orphans adopted, all that a server has ever started here.

    Those that are `spared`, with their own descendants, are not the server's.
    """

    def __init__(self, spared: AbstractSet[Identity] = frozenset()) -> None:
        super().__init__(())
        self._spared = spared

    def among(self, processes: Iterable[Process], asking: Optional[int] = None) -> List[Process]:  # noqa: ARG002
        """Return the descendants among all processes of the host."""
        children: Dict[int, List[Process]] = {}
        for process in processes:
            children.setdefault(process.ppid, []).append(process)
        descendants: List[Process] = []
        parents = [os.getpid()]
        while parents:
            born = [process for process in children.pop(parents.pop(), []) if process.identity not in self._spared]
            descendants += born
            parents += [process.pid for process in born]
        return descendants


def spawn(command: Sequence[str]) -> int:
    """Start a server; return its pid. It gets the two signals that Python ignores."""
    return os.posix_spawnp(command[0], list(command), os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])


def reap(child: int) -> Optional[int]:
    """Reap all children that have ended; return the exit status of `child`, None while it lives."""
    return reap_all().get(child)


def reap_all() -> Dict[int, int]:
    """Reap all children that have ended; return their exit statuses by pid, negative for the signal that ended one."""
    statuses = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            statuses[pid] = -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    return statuses
