"""Write a deployment's files on this host and start its scripts, recorded and marked."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Tuple

from flagscale_deploy.remote.deployment import ray_temp, record, restart_permits, shared_memory, state
from flagscale_deploy.remote.system import files, oom, proc
from flagscale_deploy.remote.system.proc import start_ticks

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record, RecordedProcess
    from flagscale_deploy.remote.messages.run import ScriptArguments

LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
SETTLE_SECONDS = 0.2
"""How long a detached script is watched for an end at once (a command that isn't there)."""


def put(path: Path, text: str, mode: int) -> None:
    """Write a file, and make its directory where there is none."""
    files.make_private_directory(path.parent)
    files.write_atomically(path, text, mode)


def put_all(directory: Path, texts: Mapping[str, Tuple[str, str]]) -> None:
    """Write files into a state directory: text and octal mode by path below it.

    Raises ValueError, with nothing written, where a path leads elsewhere.
    """
    for name in texts:
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError("%r cannot be used as a path below the state directory" % name)
    for name, (text, mode) in texts.items():
        put(directory / name, text, int(mode, 8))


def begin(before: Record, planned: Record, run_id: str) -> Record:
    """Return the record of a run: new for a new run, to which the steps of the run add."""
    if before.get("run_id") == run_id:
        before.pop("stopped_at", None)
        return before
    if before.get("segments"):
        shared_memory.Segments(before).remove()
    return {
        **planned,
        "run_id": run_id,
        "boot_id": record.boot_id(),
        "machine": os.uname().nodename,
        "processes": [],
        "started_at": time.time(),
        "oom_kills": oom.kills(),
    }


def make_temporary_directory(args: ScriptArguments) -> None:
    """Make the run's temporary directory, and note it for the scripts and in the record."""
    deployment, host = args["deployment"], args["host"]
    recorded = (record.read(deployment, host) or {}).get("ray_temp_dir")
    path = ray_temp.make(args["session"], {"deployment": deployment, "host": host, "run_id": args["run_id"]}, recorded)
    put(state.directory(deployment, host) / "temporary", path, 0o600)
    record.update(deployment, host, lambda before: {**before, "ray_temp_dir": path})


def start(directory: Path, args: ScriptArguments, log: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the script, recorded and marked."""
    environment = dict(environ)
    environment[proc.MARKER] = "%s/%s" % (args["deployment"], args["run_id"])
    environment[proc.SCRIPT] = args["script"]
    # to its end, also when somebody has cut it
    with os.fdopen(os.open(str(log), LOG, 0o600), "ab") as output:
        process = subprocess.Popen(
            ["bash", str(directory / "scripts" / args["script"])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=str(Path.home()),
            env=environment,
        )
    started: RecordedProcess = {
        "role": args["role"],
        "pid": process.pid,
        "start_ticks": start_ticks(process.pid),
        "boot_id": record.boot_id(),
        "log": str(log),
        "script": args["script"],
    }
    record.update(
        args["deployment"],
        args["host"],
        lambda before: {**before, "processes": [*before["processes"], started]},
    )
    return process


def is_up(args: ScriptArguments) -> bool:
    """Return whether a script has become a supervisor that says its server is up, as that of a Ray node does."""
    reported = restart_permits.of(args["deployment"], args["host"], args["run_id"], args["script"]).read() or {}
    return bool(reported.get("healthy")) and reported.get("boot_id") == record.boot_id()
