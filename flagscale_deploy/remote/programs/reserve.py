"""Take a run's GPUs and ports on this host, or name who has them; or give them back.

Two runs that were planned from the same look at the host come here one after the other: looking and taking happen under
one lock of this host and user. Nothing is taken for an operator who has gone meanwhile: they have given it back, or
cannot. `launch` starts nothing for a run that the record does not name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import before_change, ray_temp, record, restart_permits, scripts, state
from flagscale_deploy.remote.deployment.reservation import alone, conflicts
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import RunTarget, Target
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.run import ReserveArguments, ReserveReply

send: Callable[[ReserveReply], None] = wire.send


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
            before_change.forget(directory)
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
