"""Holds the deployment's lock on its head for as long as the operator is heard.

main({deployment, host, wait, beat, lease, holder: {who, what, since}}), times in seconds, answers {"locked": true} and
stays; or, when somebody else holds it after `wait`, {"locked": false, "holder": {...}, "silent": seconds | None}; or
{"locked": false, "problem": text} where no lock can be had there at all.

While it holds the lock it says {"beat": n} every `beat` seconds, and the operator answers each with a line. The kernel
lets go of the lock when this process ends, however it ends. It ends with its standard input, and by itself when no
answer came for `lease` seconds: after the operator's power loss sshd can keep a dead connection for hours. `unlock`
ends it with SIGTERM: then it says {"displaced": {who, since}} first, so that its operator's command does not go on.
"""

import contextlib
import os
import select
import signal
import time
from pathlib import Path
from typing import Any, Dict

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.deployment.lockfile import (
    UnusableError,
    displacer,
    holder,
    identity,
    leave,
    silent_for,
    take,
    write,
)
from flagscale_deploy.remote.wire import lifeline_lost, say

POLL_SECONDS = 0.1


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    end = time.monotonic() + args["wait"]
    while True:
        try:
            descriptor = take(path)
        except UnusableError as error:
            say(locked=False, problem=str(error))
            return
        if descriptor is not None:
            break
        if time.monotonic() >= end:
            found = holder(path)
            say(locked=False, holder=found, silent=silent_for(found))
            return
        if lifeline_lost(POLL_SECONDS):
            return
    try:
        with contextlib.suppress(BrokenPipeError):
            keep(descriptor, {**args["holder"], **identity()}, directory, args["beat"], args["lease"])
    finally:
        leave(directory, descriptor)


def keep(descriptor: int, known: Dict[str, Any], directory: Path, beat: float, lease: float) -> None:
    """Hold the lock until the operator lets go, is gone, or is displaced."""
    unlocked = _sigterm()
    said = heard = time.monotonic()
    write(descriptor, known)
    say(locked=True)
    count = 0
    while time.monotonic() - heard < lease:
        ready, _, _ = select.select([0, unlocked], [], [], max(0.0, said + beat - time.monotonic()))
        if unlocked in ready:
            say(displaced=displacer(directory))
            return
        if ready:
            if lifeline_lost():
                return
            heard = time.monotonic()
            write(descriptor, known)
        if time.monotonic() >= said + beat:
            said, count = time.monotonic(), count + 1
            say(beat=count)
    say(displaced={"silent": lease})


def _sigterm() -> int:
    """A descriptor that can be read once SIGTERM has come."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.write(writing, b"x") and None)
    return reading
