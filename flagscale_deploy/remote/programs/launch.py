"""Write files on a host and run one script there, in a session of its own that carries the run's marker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import history, kept, record, restart_permits, state
from flagscale_deploy.remote.deployment.scripts import (
    SETTLE_SECONDS,
    begin,
    is_up,
    make_temporary_directory,
    put_all,
    start,
)
from flagscale_deploy.remote.system import files
from flagscale_deploy.remote.system.proc import start_ticks
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import LaunchArguments, LaunchReply, ScriptArguments

send: Callable[[LaunchReply], None] = wire.send

POLL_SECONDS = 0.05
TAIL_LINES, TAIL_BYTES = 40, 16 << 10


def main(args: LaunchArguments) -> None:
    """Write the files, then start the script."""
    directory = state.directory(args["deployment"], args["host"])
    deployed = record.read(args["deployment"], args["host"]) or {}
    if deployed.get("run_id") not in (None, args["run_id"]):  # `reserve` made it ours; then another run took the place
        raise RuntimeError("run %s of %s has replaced this run" % (deployed["run_id"], args["deployment"]))
    refuse_stopped(args)
    first = "change" not in deployed and (deployed.get("run_id") is None or not deployed.get("processes"))
    for folder in (directory, *(directory / name for name in ("scripts", "logs", "secrets"))):
        files.make_private_directory(folder)
    put_all(directory, args["files"])
    begun = record.update(
        args["deployment"], args["host"], lambda before: begin(before, args["record"], args["run_id"])
    )
    make_temporary_directory(args)
    if first:
        kept.forget_old(directory, kept.named_by(begun))
        note_run(args)
    run(directory, args)


def note_run(args: LaunchArguments) -> None:
    """Note in the history that a run begins here, by whom, and with which command lines."""
    servers = [*args["record"].get("instances", ()), *args["record"].get("routers", ())]
    argv = {server["name"]: server["argv"] for server in servers if server.get("argv")}
    history.note(args, "run", run_id=args["run_id"], by=args["record"].get("operator", ""), argv=argv)


def run(directory: Path, args: ScriptArguments) -> None:
    """Start the script and wait as long as asked for.

    Nothing is started for an operator who has gone meanwhile: their lock has gone with them, and a `stop` may have been
    here before us.
    """
    if input_ended():
        return
    log = directory / "logs" / (Path(args["script"]).stem + ".log")
    if log.exists():
        os.replace(str(log), str(log.with_suffix(".previous.log")))
    process = start(directory, args, log, os.environ)
    try:
        refuse_stopped(args)  # `stop` forbids before it looks: what it did not see ends here
    except RuntimeError:
        os.killpg(process.pid, 9)
        process.wait()
        raise
    send({"log": str(log), "pid": process.pid, "start_ticks": start_ticks(process.pid)})
    send({"exit_code": wait(process, args), "tail": tail(log)})


def refuse_stopped(args: ScriptArguments) -> None:
    """Raise RuntimeError where the run was stopped: nothing of it starts any more."""
    if restart_permits.is_forbidden(args["deployment"], args["host"], args["run_id"], args["script"]):
        raise RuntimeError("run %s of %s was stopped" % (args["run_id"], args["deployment"]))


def wait(process: subprocess.Popen[bytes], args: ScriptArguments) -> Optional[int]:
    """Return the script's exit status, None while a detached one runs, or one that has become a supervisor.

    Any other one that hangs is killed, with its session.
    """
    end = time.monotonic() + (SETTLE_SECONDS if args["detached"] else args["timeout"])
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)  # it sees a short script's end at once
        if input_ended() or (not args["detached"] and process.poll() is None and is_up(args)):
            return None
    if process.returncode is None and not args["detached"]:
        os.killpg(process.pid, 9)
        process.wait()
        raise RuntimeError("%s did not end within %g s; it was ended" % (args["script"], args["timeout"]))
    return process.returncode


def tail(log: Path) -> List[str]:
    """Return the last lines of a log."""
    with files.open_regular(str(log)) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
