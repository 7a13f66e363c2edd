"""The children of a program that adopts what they leave behind."""

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
    """Whatever the server leaves when it dies becomes our child, also what has a session and a name of its own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Descendants(Family):
    """What descends from this process: with orphans adopted, all that a server has ever started here."""

    def __init__(self) -> None:
        super().__init__(())

    def among(self, processes: Iterable[Process], asking: Optional[int] = None) -> List[Process]:  # noqa: ARG002
        """As of any family."""
        children: Dict[int, List[Process]] = {}
        for each in processes:
            children.setdefault(each.ppid, []).append(each)
        found: List[Process] = []
        parents = [os.getpid()]
        while parents:
            born = children.pop(parents.pop(), [])
            found += born
            parents += [each.pid for each in born]
        return found


def reap(child: int) -> Optional[int]:
    """Take the exit statuses of all children that have ended: that of `child`, or None while it lives."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                status = -os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    return status
