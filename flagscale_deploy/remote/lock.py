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
from typing import Any, Dict

from flagscale_deploy.remote import state
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.1


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "lock"
    end = time.monotonic() + args["wait"]
    with open(str(path), "a+", encoding="utf-8") as file:
        while not take(file.fileno()):
            if time.monotonic() >= end:
                file.seek(0)
                say(locked=False, holder=holder(file.read()))
                return
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(json.dumps(args["holder"]))
        file.flush()
        say(locked=True)
        while not lifeline_lost():
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError):
            os.truncate(str(path), 0)


def take(descriptor: int) -> bool:
    """Try to take the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(text: str) -> Dict[str, Any]:
    """Who wrote the lock file; empty while they have not yet."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
