"""Write a deployment's files on this host and start its scripts, recorded and marked."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Mapping

from flagscale_deploy.remote.deployment import ray_temp, record, shared_memory
from flagscale_deploy.remote.system import files, oom, proc
from flagscale_deploy.remote.system.proc import start_ticks

SETTLE_SECONDS = 0.2
"""How long a detached script is watched for an end at once (a command that isn't there)."""


def put(path: Path, text: str, mode: int) -> None:
    """Write a file, and make its directory where there is none."""
    files.make_private_directory(path.parent)
    files.write_atomically(path, text, mode)


def begin(known: Dict[str, Any], args: Dict[str, Any]) -> None:
    """A new run's record starts empty (what only the old one knew of goes with it); the steps of one run add to it."""
    if known.get("run_id") != args["run_id"]:
        if known.get("segments"):
            shared_memory.Segments(known).remove()
        known.clear()
        known.update(
            args["record"],
            run_id=args["run_id"],
            boot_id=record.boot_id(),
            machine=os.uname().nodename,
            processes=[],
            started_at=time.time(),
        )
        known["oom_kills"] = oom.kills()
    known.pop("stopped_at", None)


def make_temporary_directory(args: Dict[str, Any]) -> None:
    """The run's temporary directory (Ray's, and TMPDIR): short, ours alone, claimed so that cleanup may remove it."""
    path = Path("/tmp/fsd-%d-%s" % (os.getuid(), args["session"]))
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise RuntimeError("%s belongs to somebody else" % path)
    put(path / ray_temp.CLAIM, json.dumps({name: args[name] for name in ("deployment", "host", "run_id")}), 0o600)
    record.update(args["deployment"], args["host"], lambda known: known.update(ray_temp_dir=str(path)))


def start(directory: Path, args: Dict[str, Any], log: Path, environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the script, and record it."""
    environment = dict(environ)
    environment[proc.MARKER] = "%s/%s" % (args["deployment"], args["run_id"])
    # to its end, also when somebody has cut it
    with os.fdopen(os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        process = subprocess.Popen(
            ["bash", str(directory / "scripts" / args["script"])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=str(Path.home()),
            env=environment,
        )
    started = {
        "role": args["role"],
        "pid": process.pid,
        "start_ticks": start_ticks(process.pid),
        "boot_id": record.boot_id(),
        "log": str(log),
        "script": args["script"],
    }
    record.update(args["deployment"], args["host"], lambda known: known["processes"].append(started))
    return process
