"""One function per command, for programs as for the command line. Each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flagscale_deploy.api.request import Options, Request, load_request

if TYPE_CHECKING:
    from flagscale_deploy.api.checking import CheckReport, check
    from flagscale_deploy.api.ending import cleanup, stop, unlock
    from flagscale_deploy.api.looking import (
        call,
        collect,
        diagnose,
        diagnose_offline,
        execute_everywhere,
        follow,
        status,
    )
    from flagscale_deploy.api.planning import describe, plan
    from flagscale_deploy.api.pushing import push
    from flagscale_deploy.api.running import RunResult, run

_ROOMS = {
    "checking": ("CheckReport", "check"),
    "ending": ("cleanup", "stop", "unlock"),
    "looking": ("call", "collect", "diagnose", "diagnose_offline", "execute_everywhere", "follow", "status"),
    "planning": ("describe", "plan"),
    "pushing": ("push",),
    "running": ("RunResult", "run"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "CheckReport",
    "Options",
    "Request",
    "RunResult",
    "call",
    "check",
    "cleanup",
    "collect",
    "describe",
    "diagnose",
    "diagnose_offline",
    "execute_everywhere",
    "follow",
    "load_request",
    "plan",
    "push",
    "run",
    "status",
    "stop",
    "unlock",
]


def __getattr__(name: str) -> Any:
    """`status` needs no planner, and `plan --offline` no SSH: a command imports 0.1 to 0.2 s less of this package."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = found
    return found
