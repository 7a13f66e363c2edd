"""Puts files on a host and runs one script there, in a session of its own that carries the run's marker.

main({deployment, host, run_id, record, files: {name: [text, octal mode]}, script, role, detached, timeout,
session}) answers {"log": path, "pid": n, "start_ticks": n} when the script runs, then {"exit_code": n | None,
"tail": [lines]}: None for a detached script that is still running. `script` None only puts the files.
"""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from flagscale_deploy.remote import oom, ray_temp, record, shared_memory, state
from flagscale_deploy.remote.proc import start_ticks
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.2
"""How long a detached script is watched for an end at once (a command that isn't there)."""
TAIL_LINES = 40


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    known = record.read(args["deployment"], args["host"]) or {}
    if known.get("run_id") not in (None, args["run_id"]):  # `reserve` made it ours; then another run took the place
        raise RuntimeError("run %s of %s has taken this one's place" % (known["run_id"], args["deployment"]))
    for each in (directory, *(directory / name for name in ("scripts", "logs", "secrets"))):
        state.make(each)
    for name, (text, mode) in args["files"].items():
        put(directory / name, text, int(mode, 8))
    record.update(args["deployment"], args["host"], lambda known: begin(known, args))
    make_temporary_directory(args)
    if args.get("script"):
        run(directory, args)
    else:
        say(exit_code=0, tail=[])


def put(path: Path, text: str, mode: int) -> None:
    """Write a file that has its mode from the start, and appears whole. Surrogates are bytes that are no UTF-8."""
    state.make(path.parent)
    fresh = path.with_name(path.name + ".new")
    if fresh.exists():
        fresh.unlink()
    descriptor = os.open(str(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    os.replace(str(fresh), str(path))


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


def run(directory: Path, args: Dict[str, Any]) -> None:
    """Start the script and wait as long as asked for. Nothing is started for an operator who has gone meanwhile: his
    lock has gone with him, and a `stop` may have been here before us."""
    if lifeline_lost():
        return
    log = directory / "logs" / (Path(args["script"]).stem + ".log")
    if log.exists():
        os.replace(str(log), str(log.with_suffix(".previous.log")))
    process = start(directory, args, log, os.environ)
    say(log=str(log), pid=process.pid, start_ticks=start_ticks(process.pid))
    say(exit_code=wait(process, args), tail=tail(log))


def start(directory: Path, args: Dict[str, Any], log: Path, environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the script, and record it."""
    environment = dict(environ)
    environment[state.MARKER] = "%s/%s" % (args["deployment"], args["run_id"])
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


def wait(process: "subprocess.Popen[bytes]", args: Dict[str, Any]) -> Optional[int]:
    """Its exit status; None while a detached one runs. One that hangs is ended, with its session."""
    end = time.monotonic() + (SETTLE_SECONDS if args["detached"] else args["timeout"])
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)  # it sees a short script's end at once
        if lifeline_lost():
            return None
    if process.returncode is None and not args["detached"]:
        os.killpg(process.pid, 9)
        process.wait()
        raise RuntimeError("%s did not end within %g s; it was ended" % (args["script"], args["timeout"]))
    return process.returncode


def tail(log: Path) -> List[str]:
    """The last lines of a log."""
    with open(str(log), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
        return file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
