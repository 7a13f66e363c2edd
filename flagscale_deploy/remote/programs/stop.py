"""Ends what a deployment runs on this host, engines before Ray, and proves that it is gone.

main({deployment, host, run_id: None | text, grace, ray_grace, wait: None | seconds}), the graces being seconds between
SIGTERM and SIGKILL, answers {"event": "found", "count": n}; for each stage that has something to end {"event": "stage",
"stage": "engines" | "ray" | "after_stop", "signalled": n}, and {"event": "killed", "count": n} if that did not do; with
`wait`, {"event": "waiting", "ended": n, "seconds": s, "segments": n} when the engines have ended; last {"event":
"done", "survivors": [{pid, command, state, why}], "ended": n, "seconds": s, "ports_left": [{port,
pid, command}], "segments": n, "after_stop": None | {exit_code, log}, "unclosed": ""}, where `segments` counts what was
removed from /dev/shm, `unclosed` is why secrets or the record could not be changed, and the exit code is None if the
script did not end in time.

Before it looks for anything it forbids restarts (`restarts.py`) and takes the entry for a reboot away (`boot.py`): what
dies now stays dead.

Logs and scripts stay; secrets don't. With `wait`, Ray and what comes after it ends when a line says so, for the engines
of every host end before the Ray of any: if none comes in that time, or the operator has gone, they are left to another
stop. Otherwise it goes on when the operator has gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from flagscale_deploy.remote.deployment import (
    boot_entry,
    processes,
    record,
    restart_state,
    shared_memory,
    state,
    terminate,
)
from flagscale_deploy.remote.engine import ranks
from flagscale_deploy.remote.system import gpus, ports, proc, subprocesses
from flagscale_deploy.remote.wire import heard, say

AFTER_STOP_SECONDS = 60.0
RAY_GRACE_SECONDS = 5.0
ENGINES = ("engine", "router")


def main(args: Dict[str, Any]) -> None:
    """Stop the deployment, or only the run that `run_id` names. What has been stopped already may be stopped again."""
    began = time.monotonic()
    deployment, host, run_id = args["deployment"], args["host"], args.get("run_id")
    known = record.read(deployment, host) or {}
    if run_id not in (None, known.get("run_id")):
        known = {}
    named = processes.recorded(known)
    ours = processes.Family([each.identity for each in named], processes.marked(f"{deployment}/{run_id or ''}"))
    engines = processes.Family([each.identity for each in named if each.role in ENGINES])
    act, segments = terminate.Ending(ours, _tell), shared_memory.Segments(known)
    restart_state.forbid(deployment, host, [str(known["run_id"])] if known.get("run_id") else [])
    boot_entry.remove(deployment, host)
    found = act.look(ours)
    restart_state.forbid(deployment, host, {each.marker.rpartition("/")[2] for each in found if each.marker})
    segments.note(found)
    _tell(event="found", count=len(found))
    act.end(terminate.Stage("engines", engines, args["grace"]))
    removed, waited = 0, 0.0
    if args.get("wait") is not None:
        removed, waiting = segments.remove(), time.monotonic()
        _tell(event="waiting", ended=act.ended(), seconds=round(waiting - began, 3), segments=removed)
        if not heard(args["wait"]):
            return
        waited = time.monotonic() - waiting
    grace = args.get("ray_grace", RAY_GRACE_SECONDS) if named else args["grace"]
    act.end(terminate.Stage("ray", ours, grace, hasty=lambda each: not ranks.of_engine(each)))
    done = _finish(deployment, host, act, ours, known)
    done.update(ports_left=ports_left(known), segments=removed + segments.remove())
    _tell(event="done", ended=act.ended(), seconds=round(time.monotonic() - began - waited, 3), **done)


def ports_left(known: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The recorded ports on which something still listens, ours or not."""
    recorded = known.get("ports") or ()
    numbers = set(recorded.values() if isinstance(recorded, dict) else recorded)
    listening = ports.listening(proc.scan()) if numbers else []
    return [{name: each[name] for name in ("port", "pid", "command")} for each in listening if each["port"] in numbers]


def _finish(
    deployment: str, host: str, act: terminate.Ending, ours: processes.Family, known: Dict[str, Any]
) -> Dict[str, Any]:
    """What is done once all is gone: after_stop, if this ended something, and closing the record."""
    survivors = act.survivors(ours)
    stopped_before = not act.seen and (not known or known.get("stopped_at"))
    if survivors or stopped_before:
        return {"survivors": survivors, "after_stop": None, "unclosed": ""}
    after_stop = _after_stop(state.directory(deployment, host), f"{deployment}/{known.get('run_id') or 'stop'}")
    act.end(terminate.Stage("after_stop", ours, RAY_GRACE_SECONDS))
    survivors = act.survivors(ours)
    unclosed = _close(deployment, host) if known and not survivors else ""
    return {"survivors": survivors, "after_stop": after_stop, "unclosed": unclosed}


def _tell(**message: Any) -> None:
    """Say it, if anybody still listens."""
    with contextlib.suppress(OSError):
        say(**message)


def _after_stop(directory: Path, marker: str) -> Optional[Dict[str, Any]]:
    """Runs the deployment's last script, with its marker: what it leaves behind is ended as well."""
    script = directory / "scripts" / "after_stop.sh"
    if not script.is_file():
        return None
    log = directory / "logs" / "after_stop.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        ended = subprocesses.run(["bash", str(script)], AFTER_STOP_SECONDS, {proc.MARKER: marker}, output)
    return {"exit_code": ended.code, "log": str(log)}


def _close(deployment: str, host: str) -> str:
    """Secrets go; the record says that and by whom this was stopped. Returns what kept it from that, if anything."""
    try:
        _remove_secrets(deployment, host)
        client = os.environ.get("SSH_CLIENT", "").partition(" ")[0]
        by = gpus.user_of(os.getuid()) + (f" from {client}" if client else "")
        record.update(deployment, host, lambda now: now.update(stopped_at=time.time(), stopped_by=by))
    except OSError as error:
        return str(error)
    return ""


def _remove_secrets(deployment: str, host: str) -> None:
    secrets = state.directory(deployment, host) / "secrets"
    if secrets.is_dir() and not secrets.is_symlink():
        for entry in os.scandir(secrets):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
