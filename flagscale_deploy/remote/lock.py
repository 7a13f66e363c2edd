"""Holds the deployment's lock on its head for as long as the operator listens.

main({deployment, host, wait, holder: {who, what, since}}) answers {"locked": true} and stays until its standard input
ends; or {"locked": false, "holder": {...}} when somebody else holds it after `wait` seconds. The kernel lets go of the
lock when this process ends, however it ends: a dead operator's lock is never stale.
"""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Optional

from flagscale_deploy.remote import state
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.1


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    end = time.monotonic() + args["wait"]
    while True:
        descriptor = take(path)
        if descriptor is not None:
            break
        if time.monotonic() >= end:
            say(locked=False, holder=holder(path))
            return
        if lifeline_lost(POLL_SECONDS):
            return
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(args["holder"]).encode())
    say(locked=True)
    while not lifeline_lost(POLL_SECONDS):
        pass
    leave(directory, descriptor)


def take(path: Path) -> Optional[int]:
    """A descriptor that holds the lock, or None. A file that was removed while we waited for it locks nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(str(path))):
            return descriptor
    except OSError:
        pass  # somebody holds it, or has just removed it
    os.close(descriptor)
    return None


def leave(directory: Path, descriptor: int) -> None:
    """Let go of the lock. Where nothing was recorded under it, nothing of it stays."""
    os.ftruncate(descriptor, 0)
    if not (directory / "record.json").exists():
        with contextlib.suppress(OSError):
            os.unlink(str(directory / "lock"))
            for each in (directory, directory.parent, directory.parent.parent):
                os.rmdir(str(each))
    os.close(descriptor)


def holder(path: Path) -> Dict[str, Any]:
    """Who wrote the lock file; empty while they have not yet."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
