"""Take a run's GPUs and ports on this host, or name who has them; or give them back.

Two runs that were planned from the same look at the host come here one after the other: looking and taking happen under
one lock of this host and user. Nothing is taken for an operator who has gone meanwhile: they have given it back, or
cannot. `launch` starts nothing for a run that the record does not name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import lockfile, processes, ray_temp, record, restart_permits, scripts, state
from flagscale_deploy.remote.system import files, ports, proc

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import RunTarget, Target
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import Conflict, ReserveArguments, ReserveReply

send: Callable[[ReserveReply], None] = wire.send

WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01


def main(args: ReserveArguments) -> None:
    """Take what the run needs, or give it back."""
    if args.get("look"):
        send({"taken": list(conflicts(args))})
        return
    directory = state.directory(args["deployment"], args["host"])
    with alone():
        if args.get("release"):
            release(args, directory)
            send({"taken": []})
            return
        taken = list(conflicts(args))
        if wire.input_ended():
            return
        if not taken:
            for folder in (directory, *(directory / name for name in ("scripts", "logs", "secrets"))):
                files.make_private_directory(folder)
            for name in ("app", restart_permits.NAME):  # of an earlier run: a program's files, what was restarted
                shutil.rmtree(str(directory / name), ignore_errors=True)
            forget_all_but_last(args)
            record.update(args["deployment"], args["host"], lambda before: take(before, args))
        send({"taken": taken})


def forget_all_but_last(args: Target) -> None:
    """Remove the temporary directories of earlier runs but the last one's, as its logs are kept.

    Ray's logs are in them: a deployment that is stopped and run again every night would fill the disk.
    """
    last = (record.read(args["deployment"], args["host"]) or {}).get("ray_temp_dir")
    for path in ray_temp.directories(args["deployment"], args["host"], {}):
        if path != last:
            shutil.rmtree(path, ignore_errors=True)


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
    """Return what the run needs and somebody else has."""
    everyone = proc.scan()
    wanted = args["record"]
    gpus = set(wanted["gpus"]) if "gpus" in args["exclusive"] else set()
    numbers = set(wanted["ports"].values()) if "ports" in args["exclusive"] else set()
    for other in record.of_this_machine(args["host"]):
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

    Runs with the same head have the same lock: what one of them reserved and never started is ours to take.
    """
    marker = "%s/%s" % (other.get("deployment"), other.get("run_id"))
    running = processes.ours(everyone, marker, processes.recorded(other))
    if running:
        yield {"what": "deployment %s" % other.get("deployment"), "by": who(other), "own": True}
    elif not other.get("processes") and other.get("head") not in (None, wanted.get("head")):
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


def take(before: Record, args: ReserveArguments) -> Record:
    """Return this run's record, which keeps the one before for a release."""
    before.pop("before", None)
    return {**scripts.begin({**before}, args["record"], args["run_id"]), "before": before}


def release(args: RunTarget, directory: Path) -> None:
    """Put back what was there, if the record is still this run's and nothing was started."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    if deployed.get("run_id") != args["run_id"] or deployed.get("processes") or "before" not in deployed:
        return
    before = deployed["before"]
    if before:
        record.update(args["deployment"], args["host"], lambda _: before)
        return
    for name in ("record.json", "record.lock"):
        with contextlib.suppress(OSError):
            os.unlink(str(directory / name))
    for folder in (*(directory / name for name in ("scripts", "logs", "secrets")), directory, directory.parent):
        with contextlib.suppress(OSError):  # it holds something, the deployment's lock for one
            os.rmdir(str(folder))
