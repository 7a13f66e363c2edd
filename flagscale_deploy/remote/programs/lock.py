"""Hold the deployment's lock on its head for as long as the operator answers.

The kernel releases the lock when this process ends, however it ends. It ends with its standard input, and by itself
when no answer came for `lease` seconds: after the operator's power loss sshd can keep a dead connection for hours.
`unlock` ends it with SIGTERM: then it says so first, and its operator's command does not go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.deployment.lockfile import (
    UnusableError,
    displacement,
    holder,
    identity,
    leave,
    silent_for,
    take,
    write,
)
from flagscale_deploy.remote.wire import input_ended

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.stop import LockArguments, LockHolder, LockReply

send: Callable[[LockReply], None] = wire.send

POLL_SECONDS = 0.1


def main(args: LockArguments) -> None:
    """Take the lock, and hold it until the operator is done or gone."""
    directory = state.directory(args["deployment"], args["host"])
    path = directory / "lock"
    end = time.monotonic() + args["wait"]
    while True:
        try:
            descriptor = take(path)
        except UnusableError as error:
            send({"locked": False, "problem": str(error)})
            return
        if descriptor is not None:
            break
        if time.monotonic() >= end:
            other = holder(path)
            send({"locked": False, "holder": other, "silent": silent_for(other)})
            return
        if input_ended(POLL_SECONDS):
            return
    try:
        with contextlib.suppress(BrokenPipeError):
            keep(descriptor, {**args["holder"], **identity()}, directory, args["beat"], args["lease"])
    finally:
        leave(directory, descriptor)


def keep(descriptor: int, holder: LockHolder, directory: Path, beat: float, lease: float) -> None:
    """Hold the lock until the operator releases it, is gone, or is displaced."""
    unlocked = _sigterm()
    sent_at = heard_at = time.monotonic()
    write(descriptor, holder)
    send({"locked": True})
    count = 0
    while time.monotonic() - heard_at < lease:
        ready, _, _ = select.select([0, unlocked], [], [], max(0.0, sent_at + beat - time.monotonic()))
        if unlocked in ready:
            send({"displaced": displacement(directory)})
            return
        if ready:
            if input_ended():
                return
            heard_at = time.monotonic()
            write(descriptor, holder)
        if time.monotonic() >= sent_at + beat:
            sent_at, count = time.monotonic(), count + 1
            send({"beat": count})
    send({"displaced": {"silent": lease}})


def _sigterm() -> int:
    """Return a descriptor that can be read once SIGTERM has come."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.write(writing, b"x") and None)
    return reading
