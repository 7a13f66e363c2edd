"""Start the scripts of this host's part of a deployment after a reboot (`deploy.restart.boot`).

`python3 STATE/supervisor boot OPTIONS` is what `boot.sh` starts each script with: recorded as the launcher does it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from flagscale_deploy.remote.deployment import record, restart_permits, scripts, state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import ScriptArguments

POLL_SECONDS = 0.2
STOPPED = 3
"""The exit status of `command` if the run was stopped: none of its scripts is started any more."""


def command(words: Sequence[str]) -> None:
    """Start one script of the run; exit with its status, 0 if it is detached and runs, STOPPED if it was stopped."""
    parser = argparse.ArgumentParser(prog="boot", allow_abbrev=False)
    for name in ("--deployment", "--host", "--run", "--session", "--script", "--role"):
        parser.add_argument(name, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--detached", action="store_true")
    options = parser.parse_args(list(words))
    args: ScriptArguments = {
        "deployment": options.deployment,
        "host": options.host,
        "run_id": options.run,
        "script": options.script,
        "role": options.role,
        "detached": options.detached,
        "timeout": options.timeout,
        "session": options.session,
    }
    recorded = record.read(options.deployment, options.host) or {}
    names = options.deployment, options.host, options.run
    if restart_permits.is_forbidden(*names, options.script) and not restart_permits.is_forbidden(*names):
        print("%s is not started: its group was stopped to be changed" % options.script)
        sys.exit(0)
    stopped = recorded.get("stopped_at") or restart_permits.is_forbidden(*names)
    if stopped or recorded.get("run_id") != options.run:
        print("this run was stopped: no script is started")
        sys.exit(STOPPED)
    record.update(options.deployment, options.host, forget_earlier_boots)
    scripts.make_temporary_directory(args)
    sys.exit(start(args))


def start(args: ScriptArguments) -> int:
    """Start a script, and append to its log; return its exit status, 0 if it is detached and runs."""
    directory = state.directory(args["deployment"], args["host"])
    log = directory / "logs" / (Path(args["script"]).stem + ".log")
    print("starting %s" % args["script"], flush=True)
    process = scripts.start(directory, args, log, os.environ)
    end = time.monotonic() + (scripts.SETTLE_SECONDS if args["detached"] else args["timeout"])
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_SECONDS)
        if not args["detached"] and scripts.is_up(args):
            return 0
    if args["detached"]:
        return 0
    os.killpg(process.pid, 9)
    process.wait()
    print("%s did not end within %g s and was killed" % (args["script"], args["timeout"]))
    return 1


def forget_earlier_boots(before: Record) -> Record:
    """Return the record without processes of earlier boots: they are gone, and their pids others' by now."""
    boot_id = record.boot_id()
    here = [process for process in before.get("processes", []) if process.get("boot_id") == boot_id]
    return {**before, "processes": here, "boot_id": boot_id}
