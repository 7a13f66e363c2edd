"""Find out who has what a run needs on this host: its GPUs, its ports, its name; one at a time."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Iterator, List

from flagscale_deploy.remote.deployment import lockfile, processes, record, state
from flagscale_deploy.remote.system import ports, proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import Conflict, ReserveArguments

WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep everybody else of this user from reserving anything on this host meanwhile. Nothing of it stays."""
    path = state.reservation_lock()
    until = time.monotonic() + WAIT_SECONDS
    while True:
        descriptor = lockfile.take(path)
        if descriptor is not None:
            break
        if time.monotonic() >= until:
            raise RuntimeError("another command has held the reservation lock here for %g s" % WAIT_SECONDS)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(str(path))
            os.rmdir(str(path.parent))  # where nothing was reserved here, ever
        os.close(descriptor)


def conflicts(args: ReserveArguments) -> Iterator[Conflict]:
    """Return what the run needs and somebody else has.

    Records are read before processes: what a record does not have by then is still a reservation, what it has runs.
    """
    others = list(record.of_this_machine(args["host"]))
    everyone = proc.scan()
    wanted = args["record"]
    gpus = set(wanted["gpus"]) if "gpus" in args["exclusive"] else set()
    numbers = set(wanted["ports"].values()) if "ports" in args["exclusive"] else set()
    for other in others:
        if other.get("stopped_at") or other.get("boot_id") != record.boot_id():
            continue
        if (other.get("deployment"), other.get("host")) == (args["deployment"], args["host"]):
            if other.get("run_id") != args["run_id"]:
                yield from same_name(other, wanted, everyone)
            continue
        whose = who(other)
        for index in sorted(gpus & set(other.get("gpus") or ())):
            yield {"what": "GPU %d" % index, "by": whose}
        for port in sorted(numbers & record.ports(other)):
            yield {"what": "port %d" % port, "by": whose}
            numbers.discard(port)
    mine = "%s/" % args["deployment"]
    for listener in ports.listening(everyone, numbers) if numbers else ():
        if listener["port"] in numbers and not listener["run"].startswith(mine):
            numbers.discard(listener["port"])
            pid = " (pid %d)" % listener["pid"] if listener["pid"] else ""
            yield {"what": "port %d" % listener["port"], "by": (listener["command"] or "a process") + pid}


def same_name(other: Record, wanted: Record, everyone: List[proc.Process]) -> Iterator[Conflict]:
    """Return the deployment itself, where another run of it lives here, or one with another head is about to start.

    Runs with the same head have the same lock: what one of them reserved and never started is ours to take. The record
    of a head that has no part in its deployment reserves nothing.
    """
    marker = "%s/%s" % (other.get("deployment"), other.get("run_id"))
    running = processes.ours(everyone, marker, processes.recorded(other))
    if running:
        yield {"what": "deployment %s" % other.get("deployment"), "by": who(other), "own": True}
    elif (
        not other.get("processes") and other.get("roles") != [] and other.get("head") not in (None, wanted.get("head"))
    ):
        yield {"what": "the name %s" % other.get("deployment"), "by": who(other)}


def who(other: Record) -> str:
    """Return a record's run in words."""
    since = other.get("started_at")
    when = ""
    with contextlib.suppress(OSError, OverflowError, ValueError):  # no time of this world
        when = time.strftime(", since %Y-%m-%d %H:%M:%S %z", time.localtime(since)) if since else ""
    return "deployment %s (run %s of %s%s)" % (
        other.get("deployment"), other.get("run_id"), other.get("operator") or "somebody", when,
    )  # fmt: skip
