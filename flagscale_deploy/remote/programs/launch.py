"""Puts files on a host and runs one script there, in a session of its own that carries the run's marker.

main({deployment, host, run_id, record, files: {name: [text, octal mode]}, script, role, detached, timeout,
session}) answers {"log": path, "pid": n, "start_ticks": n} when the script runs, then {"exit_code": n | None,
"tail": [lines]}: None for a detached script that is still running. `script` None only puts the files.
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from flagscale_deploy.remote.deployment import record, state
from flagscale_deploy.remote.deployment.scripts import SETTLE_SECONDS, begin, make_temporary_directory, put, start
from flagscale_deploy.remote.system import files
from flagscale_deploy.remote.system.proc import start_ticks
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.05
TAIL_LINES = 40


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    known = record.read(args["deployment"], args["host"]) or {}
    if known.get("run_id") not in (None, args["run_id"]):  # `reserve` made it ours; then another run took the place
        raise RuntimeError("run %s of %s has taken this one's place" % (known["run_id"], args["deployment"]))
    for each in (directory, *(directory / name for name in ("scripts", "logs", "secrets"))):
        files.make_private_directory(each)
    for name, (text, mode) in args["files"].items():
        put(directory / name, text, int(mode, 8))
    record.update(args["deployment"], args["host"], lambda known: begin(known, args))
    make_temporary_directory(args)
    if args.get("script"):
        run(directory, args)
    else:
        say(exit_code=0, tail=[])


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
