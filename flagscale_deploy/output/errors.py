"""Show how a command failed."""

from __future__ import annotations

from collections.abc import Iterable

from flagscale_deploy.api import ChangeFailedError
from flagscale_deploy.deploy.bring_up import RunFailedError, failure_json
from flagscale_deploy.errors import DeployError, Fault, FaultsError, HostsFailedError
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.run import show_run_failure


def show_error(console: Console, error: DeployError, as_json: bool) -> int:
    """Show an error, as JSON too if that is asked for. Returns its exit status."""
    if as_json:
        console.json(error_json(error))
    if isinstance(error, RunFailedError):
        show_run_failure(console, error)
        return error.exit_code
    parts: Iterable[Fault | DeployError] = (error,)
    if isinstance(error, FaultsError):
        parts = error.faults
    elif isinstance(error, HostsFailedError):
        parts = error.errors
    for part in parts:
        first, *rest = part.lines
        console.error(f"✗ {first}", *rest)
    return error.exit_code


def error_json(error: DeployError) -> dict[str, object]:
    """Return what `--json` prints of a command that failed."""
    if isinstance(error, RunFailedError):
        return {"schema": 1, "verdict": "failed", "folder": str(error.folder.path), **failure_json(error.failure)}
    faults = [{"where": fault.where, "problem": fault.problem, "remedy": fault.remedy}
              for fault in getattr(error, "faults", ())]  # fmt: skip
    content = {"schema": 1, "error": str(error), "exit_code": error.exit_code, "faults": faults}
    if isinstance(error, ChangeFailedError):
        return {**content, "change_id": error.change_id, "put_back": error.put_back}
    return content
