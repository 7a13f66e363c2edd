"""End what a deployment runs on this host, engines before Ray, and prove that it is gone.

Before it looks for anything it forbids restarts (`deployment/restart_permits.py`) and removes the entry for a reboot
(`deployment/boot_entry.py`): what dies now stays dead. Logs and scripts stay; secrets don't.

With `wait`, Ray and what comes after it ends when an order says so, for the engines of every host end before the Ray of
any: if none comes in that time, or the operator has gone, they are left to another stop. Otherwise it goes on when the
operator has gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import (
    before_change,
    boot_entry,
    history,
    processes,
    record,
    restart_permits,
    scripts,
    shared_memory,
    state,
    terminate,
)
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.system import gpus, ports, proc, subprocesses
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.wire import receive

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.stop import (
        AfterStop,
        PortLeft,
        RunFailure,
        StopArguments,
        StopDone,
        StopFinish,
        StopReply,
    )

send: Callable[[StopReply], None] = wire.send

BEFORE_SECONDS, REMOVAL_SECONDS = 5.0, 30.0
"""How long the removal of the entry for a reboot may keep processes from being ended, and this program from its end."""
AFTER_STOP_SECONDS = 60.0
MOST_PORTS = 20
RAY_GRACE_SECONDS = 5.0


def main(args: StopArguments) -> None:
    """Stop the deployment, or only the run that `run_id` names. What has been stopped may be stopped again."""
    began = time.monotonic()
    deployment, host, run_id, wait = args["deployment"], args["host"], args.get("run_id"), args.get("wait")
    deployed = record.read(deployment, host) or {}
    if run_id not in (None, deployed.get("run_id")):
        deployed = {}
    named = processes.recorded(deployed)
    ours = processes.Family([entry.identity for entry in named], processes.marked(f"{deployment}/{run_id or ''}"))
    engines = processes.Family([entry.identity for entry in named if entry.role in record.SERVERS])
    act, segments = terminate.Termination(ours, _tell), shared_memory.Segments(deployed)
    restart_permits.forbid(deployment, host, [str(deployed["run_id"])] if deployed.get("run_id") else [])
    removal = Background(boot_entry.remove, deployment, host)
    with contextlib.suppress(TimeoutError):  # systemd or cron that hangs; what boots asks for permission to start
        removal.result(BEFORE_SECONDS)
    running = act.look(ours)
    restart_permits.forbid(
        deployment, host, {process.marker.rpartition("/")[2] for process in running if process.marker}
    )
    segments.note(running)
    _tell({"event": "found", "count": len(running)})
    act.end(terminate.Stage("engines", engines, args["grace"]))
    removed, waited = 0, 0.0
    if wait is not None:
        removed, waiting = segments.remove(), time.monotonic()
        seconds = round(waiting - began, 3)
        _tell({"event": "waiting", "ended": act.ended(), "seconds": seconds, "segments": removed})
        if not receive(wait):
            return
        waited = time.monotonic() - waiting
    grace = args.get("ray_grace", RAY_GRACE_SECONDS) if named else args["grace"]
    act.end(terminate.Stage("ray", ours, grace, hasty=lambda process: not ranks.of_engine(process)))
    finish = _finish(args, act, ours, deployed)
    left, removed = ports_left(deployed), removed + segments.remove()
    done: StopDone = {
        **finish,
        "event": "done",
        "ended": act.ended(),
        "seconds": round(time.monotonic() - began - waited, 3),
        "ports_left": left,
        "segments": removed,
    }
    with contextlib.suppress(TimeoutError):
        removal.result(REMOVAL_SECONDS)
    _tell(done)


def ports_left(deployed: Record) -> List[PortLeft]:
    """Return the recorded ports on which something still listens, ours or not; 20 at most."""
    numbers = record.ports(deployed)
    listening = ports.listening(proc.scan(), numbers) if numbers else []
    return [
        {"port": port["port"], "pid": port["pid"], "command": port["command"]}
        for port in [port for port in listening if port["port"] in numbers][:MOST_PORTS]
    ]


def _finish(args: StopArguments, act: terminate.Termination, ours: processes.Family, deployed: Record) -> StopFinish:
    """Run after_stop, if this ended something, and close the record, once all is gone."""
    deployment, host = args["deployment"], args["host"]
    survivors = act.survivors(ours)
    stopped_before = not act.seen and (not deployed or deployed.get("stopped_at"))
    if survivors or stopped_before:
        return {"survivors": survivors, "after_stop": None, "unclosed": ""}
    after_stop = _after_stop(state.directory(deployment, host), f"{deployment}/{deployed.get('run_id') or 'stop'}")
    act.end(terminate.Stage("after_stop", ours, RAY_GRACE_SECONDS))
    survivors = act.survivors(ours)
    unclosed = _close(deployment, host, args.get("failure")) if deployed and not survivors else ""
    return {"survivors": survivors, "after_stop": after_stop, "unclosed": unclosed}


def _tell(message: StopReply) -> None:
    """Send it, if anybody still listens."""
    with contextlib.suppress(OSError):
        send(message)


def _after_stop(directory: Path, marker: str) -> Optional[AfterStop]:
    """Run the deployment's last script, with its marker: what it leaves behind is ended as well."""
    script = directory / "scripts" / "after_stop.sh"
    if not script.is_file():
        return None
    log = directory / "logs" / "after_stop.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(log, scripts.LOG | os.O_TRUNC, 0o600), "wb") as output:
        ended = subprocesses.run(["bash", str(script)], AFTER_STOP_SECONDS, {proc.MARKER: marker}, output)
    return {"exit_code": ended.code, "log": str(log)}


def _close(deployment: str, host: str, failure: Optional[RunFailure]) -> str:
    """Remove secrets, and what is kept for a change; note in the record by whom this was stopped, and why it failed.

    Returns what kept it from that, or "".
    """
    try:
        _remove_secrets(deployment, host)
        before_change.forget(state.directory(deployment, host))
        client = os.environ.get("SSH_CLIENT", "").partition(" ")[0]
        by = gpus.user_of(os.getuid()) + (f" from {client}" if client else "")
        now = time.time()
        closed: Record = {"stopped_at": now, "stopped_by": by, "secret_hash": ""}
        if failure is not None:
            closed["failure"] = {
                "at": now - failure["ago"],
                "cause": failure["cause"],
                "remedy": failure["remedy"],
            }
        run_id = record.update(deployment, host, lambda before: close(before, closed)).get("run_id", "")
        event, cause = ("failed", failure["cause"]) if failure is not None else ("stopped", "")
        history.note({"deployment": deployment, "host": host}, event, run_id=run_id, by=by, reason=cause)
    except OSError as error:
        return str(error)
    return ""


def close(before: Record, closed: Record) -> Record:
    """Return the record of what was stopped; a change of it is over."""
    before.pop("change", None)
    return {**before, **closed}


def _remove_secrets(deployment: str, host: str) -> None:
    secrets = state.directory(deployment, host) / "secrets"
    if secrets.is_dir() and not secrets.is_symlink():
        for entry in os.scandir(secrets):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
