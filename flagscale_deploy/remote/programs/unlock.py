"""Says who holds a deployment's lock on this host, and ends the program that holds it.

main({deployment, host, force, gone, by: {who, since}}) answers {"state": one of these, "holder": what the lock file
says, "pid": n | None, "silent": seconds | None, "filesystem": text}:
    free       nobody holds it: the kernel gave it to us. A holder is then one that died with it
    held       a living program holds it, whose operator was heard less than `gone` seconds ago, or it does not say
    ended      it was ended: by `force`, or because its operator has been silent for so long. The lock is free now
    survives   it did not end
    elsewhere  somebody holds it whom this host does not see: another user, or a machine that shares the home directory
A program is ended only while it is the very one that the kernel names as the holder, and it is told by whom.
"""

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any, Dict

from flagscale_deploy.remote.deployment import leftovers, lockfile, state
from flagscale_deploy.remote.system import files, proc
from flagscale_deploy.remote.wire import say

GRACE_SECONDS = 3.0
POLL_SECONDS = 0.02


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    known = lockfile.holder(path)
    answer: Dict[str, Any] = {
        "holder": known,
        "pid": leftovers.locker(path),
        "silent": None,
        "filesystem": lockfile.filesystem(path),
    }
    process = proc.find(answer["pid"]) if answer["pid"] is not None else None
    if process is None:
        say(**answer, state="free" if free(directory) else "elsewhere")
        return
    if known.get("pid") == process.pid and known.get("start_ticks") == process.start_ticks:
        answer["silent"] = lockfile.silent_for(known)
    if not (args["force"] or (answer["silent"] or 0.0) >= args["gone"]):
        say(**answer, state="held")
        return
    end(process, directory, args["by"])
    say(**answer, state="ended" if free(directory) else "survives")


def free(directory: Path) -> bool:
    """Whether the lock can be had: it is taken, and let go of, which clears what a dead holder wrote."""
    if not directory.is_dir():
        return True
    descriptor = lockfile.take(directory / "lock")
    if descriptor is None:
        return False
    lockfile.leave(directory, descriptor)
    return True


def end(process: proc.Process, directory: Path, by: Dict[str, Any]) -> None:
    """End this very process: asked first, so that it can say why, then forced."""
    note = directory / "unlocked.json"
    files.write_atomically(note, json.dumps(by))
    for number in (signal.SIGTERM, signal.SIGKILL):
        if proc.send(process, number) == "refused":
            break
        until = time.monotonic() + GRACE_SECONDS
        while proc.alive(process) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        if not proc.alive(process):
            break
    with contextlib.suppress(OSError):  # who was told has removed it
        note.unlink()
