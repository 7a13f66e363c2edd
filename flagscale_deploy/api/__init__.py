"""One function per command, for programs as for the command line."""

from flagscale_deploy.api.checking import CheckReport, check
from flagscale_deploy.api.ending import cleanup, stop, unlock
from flagscale_deploy.api.looking import call, collect, diagnose, diagnose_offline, execute_everywhere, follow, status
from flagscale_deploy.api.planning import describe, plan
from flagscale_deploy.api.pushing import push
from flagscale_deploy.api.running import RunResult, run
from flagscale_deploy.request import Options, Request, load_request

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
