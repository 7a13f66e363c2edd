"""Logs of all hosts: shown and followed (`read`), brought to the operator's disk (`collect`, `store`), understood
(`diagnose`)."""

from flagscale_deploy.logs.collect import MAX_TOTAL, Collected, Wanted, collect_logs
from flagscale_deploy.logs.diagnose import diagnose_ends, diagnose_folder
from flagscale_deploy.logs.read import Lines, read_logs

KINDS = ("engine", "script", "ray", "ray-worker")

__all__ = ["KINDS", "MAX_TOTAL", "Collected", "Lines", "Wanted", "collect_logs", "diagnose_ends", "diagnose_folder",
           "read_logs"]  # fmt: skip
