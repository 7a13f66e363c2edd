"""Logs of all hosts.

`read` shows and follows them, `collect` copies them to the operator's disk, `diagnose` finds the cause of a failure.
"""

from flagscale_deploy.logs.collect import MAX_TOTAL, Collected, FileSelection, collect_logs
from flagscale_deploy.logs.diagnose import diagnose_ends, diagnose_folder, loading_stages
from flagscale_deploy.logs.read import Lines, LineSelection, ReadLimits, ReadResult, read_logs

KINDS = ("engine", "script", "ray", "ray-worker")

__all__ = [
    "KINDS",
    "MAX_TOTAL",
    "Collected",
    "FileSelection",
    "LineSelection",
    "Lines",
    "ReadLimits",
    "ReadResult",
    "collect_logs",
    "diagnose_ends",
    "diagnose_folder",
    "loading_stages",
    "read_logs",
]
