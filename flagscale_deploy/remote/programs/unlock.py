"""Report who holds a deployment's lock on this host, and end the process that holds it.

A process is ended only while it is the very one that the kernel names as the holder, and it is told by whom.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import leftovers, lockfile, state
from flagscale_deploy.remote.system import files, proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.stop import LockHolder, UnlockArguments, UnlockReply

send: Callable[[UnlockReply], None] = wire.send

GRACE_SECONDS = 3.0
POLL_SECONDS = 0.02


def main(args: UnlockArguments) -> None:
    """Report the lock's holder, and end it where that is asked for."""
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    holder = lockfile.holder(path)
    pid = leftovers.locker(path)
    reply: UnlockReply = {
        "state": "held",
        "holder": holder,
        "pid": pid,
        "silent": None,
        "filesystem": lockfile.filesystem(path),
    }
    process = proc.find(pid) if pid is not None else None
    if process is None:
        send({**reply, "state": "free" if free(directory) else "elsewhere"})
        return
    if holder.get("pid") == process.pid and holder.get("start_ticks") == process.start_ticks:
        reply["silent"] = lockfile.silent_for(holder)
    if not (args["force"] or (reply["silent"] or 0.0) >= args["gone"]):
        send(reply)
        return
    end(process, directory, args["by"])
    send({**reply, "state": "ended" if free(directory) else "survives"})


def free(directory: Path) -> bool:
    """Return whether the lock can be had: it is taken, and released, which clears what a dead holder wrote."""
    if not directory.is_dir():
        return True
    descriptor = lockfile.take(directory / "lock")
    if descriptor is None:
        return False
    lockfile.leave(directory, descriptor)
    return True


def end(process: proc.Process, directory: Path, by: LockHolder) -> None:
    """End this very process: SIGTERM first, so that it can report why, then SIGKILL."""
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
