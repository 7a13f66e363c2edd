"""Find and reap the descendants of this process, orphans included."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Dict, Iterable, List, Optional

from flagscale_deploy.remote.deployment.processes import Family
from flagscale_deploy.remote.system.proc import Process

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2)."""


def adopt_orphans() -> None:
    """Become the parent of whatever a dead server leaves behind, also of processes in sessions of their own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Descendants(Family):
    """The descendants of this process: with orphans adopted, all that a server has ever started here."""

    def __init__(self) -> None:
        super().__init__(())

    def among(self, processes: Iterable[Process], asking: Optional[int] = None) -> List[Process]:  # noqa: ARG002
        """Return the descendants among all processes of the host."""
        children: Dict[int, List[Process]] = {}
        for process in processes:
            children.setdefault(process.ppid, []).append(process)
        descendants: List[Process] = []
        parents = [os.getpid()]
        while parents:
            born = children.pop(parents.pop(), [])
            descendants += born
            parents += [process.pid for process in born]
        return descendants


def reap(child: int) -> Optional[int]:
    """Reap all children that have ended; return the exit status of `child`, None while it lives."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                status = -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    return status
