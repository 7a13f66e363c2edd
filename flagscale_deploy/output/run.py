"""Show how a run ended."""

from __future__ import annotations

import json

from flagscale_deploy.api import RunResult
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.errors import LockLostError
from flagscale_deploy.output.console import Console
from flagscale_deploy.output.stop import show_stop
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.support import shell
from flagscale_deploy.support.units import counted
from flagscale_deploy.text import one_line


def show_run(console: Console, result: RunResult) -> None:
    """Show a successful `run`: the endpoints, and a curl line to paste."""
    if result.up is None:
        assert result.status is not None
        console.print(
            f"{result.status.deployment} runs already with this very configuration (run {result.status.run_id})."
        )
    else:
        programs = (
            {instance.name for instance in result.plan.instances if is_program(instance)} if result.plan else set()
        )
        for name, seconds in result.up.ready_after.items():
            what = "is ready: its first token came"
            if name in programs:
                what = "has finished" if name in result.up.finished else "is ready"
            console.print(f"{name} {what} {seconds:.1f} s after its start")
        took = "   ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.stages.items() if seconds)
        console.print(f"{took}   in all {result.elapsed:.1f} s")
    for endpoint, served in result.endpoints:
        console.print("", f"endpoint {endpoint}")
        console.text(curl(one_line(endpoint), served, result.secured, result.authority))
    if result.folder is not None:
        console.print("", f"plan, scripts and events: {result.folder.path}")


def curl(endpoint: str, served_name: str, secured: bool, authority: str | None = None) -> str:
    """Return a request to paste, in the form of FlagScale's README; for a program only its address.

    `authority` is the CA file for a server with TLS.
    """
    if not served_name:
        return f"curl {shell.quote(endpoint)}"
    body = {
        "model": served_name,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Introduce Bruce Lee in details."},
        ],
        "max_tokens": 128,
    }
    trust = f" --cacert {shell.quote(authority)}" if authority and endpoint.startswith("https:") else ""
    key = ' \\\n  -H "Authorization: Bearer $VLLM_API_KEY"' if secured else ""
    return (
        f"curl {shell.quote(endpoint + '/chat/completions')}{trust} \\\n"
        f'  -H "Content-Type: application/json"{key} \\\n'
        f"  -d {shell.quote(json.dumps(body, ensure_ascii=False))}"
    )


def run_json(result: RunResult) -> dict[str, object]:
    """Return `run --json` of a successful run."""
    return {
        "schema": 1,
        "verdict": "ready" if result.up else "already running",
        "run_id": result.plan.run_id if result.plan else result.status.run_id if result.status else None,
        "endpoints": [{"endpoint": endpoint, "model": served} for endpoint, served in result.endpoints],
        "ready_after": dict(result.up.ready_after) if result.up else {},
        "stages": dict(result.stages),
        "elapsed": result.elapsed,
        "folder": str(result.folder.path) if result.folder else None,
    }


def show_run_failure(console: Console, error: RunFailedError) -> None:
    """Show a failed `run`: what failed, where and why, and what happened to the deployment."""
    failure = error.failure
    console.error(f"✗ {error.lines[0]}")  # the rest was shown when it happened
    if failure.diagnosis is not None:
        first, *rest = failure.diagnosis.lines
        console.error("", "first cause in the logs:", f"  {first}", *rest)
    if failure.logs:
        files, hosts = counted(sum(failure.logs.values()), "file"), counted(len(failure.logs), "host")
        console.note("", f"logs: {files} of {hosts} in {error.folder.logs}")
    for host, why in failure.unread.items():
        console.error(f"logs of {host} could not be collected: {why}")
    if isinstance(failure.error, LockLostError):
        console.note("what was started is left as it is: another command may hold the lock now")
    elif failure.stopped is None:
        why = "left as it is (--keep-on-failure)" if failure.kept else "interrupted: some of it may still run"
        console.note(f"{why}; stop it with: {error.take_down}")
    else:
        console.note("what was started has been stopped:")
        show_stop(console, failure.stopped, to_error=True)
