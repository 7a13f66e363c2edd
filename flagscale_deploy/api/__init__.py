"""One function for each command, for programs as for the command line; modules are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flagscale_deploy.api.request import Options, PlanOptions, Request, load_request

if TYPE_CHECKING:
    from flagscale_deploy.api.benchmarking import BenchOptions, BenchReport, bench
    from flagscale_deploy.api.checking import CheckReport, check
    from flagscale_deploy.api.inspecting import (
        call,
        collect,
        diagnose,
        diagnose_offline,
        execute_everywhere,
        follow,
        history,
        status,
    )
    from flagscale_deploy.api.listing import deployments
    from flagscale_deploy.api.planning import describe, plan, plan_change
    from flagscale_deploy.api.pushing import push
    from flagscale_deploy.api.running import RunResult, run
    from flagscale_deploy.api.stopping import cleanup, stop, unlock
    from flagscale_deploy.api.updating import ChangeFailedError, ChangeOptions, ChangeResult, resume, rollback, update
    from flagscale_deploy.logs import FileSelection, LineSelection

_MODULES = {
    "api.benchmarking": ("BenchOptions", "BenchReport", "bench"),
    "api.checking": ("CheckReport", "check"),
    "api.stopping": ("cleanup", "stop", "unlock"),
    "api.inspecting": (
        *("call", "collect", "diagnose", "diagnose_offline", "execute_everywhere", "follow", "history", "status"),
    ),
    "api.listing": ("deployments",),
    "api.planning": ("describe", "plan", "plan_change"),
    "api.pushing": ("push",),
    "api.running": ("RunResult", "run"),
    "api.updating": ("ChangeFailedError", "ChangeOptions", "ChangeResult", "resume", "rollback", "update"),
    "logs": ("FileSelection", "LineSelection"),
}
_MODULE_OF = {name: f"flagscale_deploy.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "BenchOptions",
    "BenchReport",
    "ChangeFailedError",
    "ChangeOptions",
    "ChangeResult",
    "CheckReport",
    "FileSelection",
    "LineSelection",
    "Options",
    "PlanOptions",
    "Request",
    "RunResult",
    "bench",
    "call",
    "check",
    "cleanup",
    "collect",
    "deployments",
    "describe",
    "diagnose",
    "diagnose_offline",
    "execute_everywhere",
    "follow",
    "history",
    "load_request",
    "plan",
    "plan_change",
    "push",
    "resume",
    "rollback",
    "run",
    "status",
    "stop",
    "unlock",
    "update",
]


def __getattr__(name: str) -> Any:
    """Import a function on first use.

    `status` needs no planner, and `plan --offline` no SSH: that saves 0.1 to 0.2 s of imports for each command.
    """
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value
