"""Takes a run's GPUs and ports on this host, or says who has them; or gives them back.

main({deployment, host, run_id, record, exclusive: ["gpus", "ports"]}) answers {"taken": [{"what": text, "by": text}]}.
Where that is empty, the host's record is this run's from now on, and nobody else's run is given what it names. Two runs
that were planned from the same look at the host come here one after the other: the looking and the taking happen under
one lock of this host and user. `launch` starts nothing for a run that the record does not name.

main({deployment, host, run_id, release: true}) puts back the record that was there before, if nothing was started.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

from flagscale_deploy.remote.deployment import lockfile, processes, ray_temp, record, restart_state, scripts, state
from flagscale_deploy.remote.system import files, ports, proc
from flagscale_deploy.remote.wire import say

WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01


def main(args: Dict[str, Any]) -> None:
    directory = state.directory(args["deployment"], args["host"])
    with alone():
        if args.get("release"):
            release(args, directory)
            say(released=True)
            return
        found = list(conflicts(args))
        if not found:
            for each in (directory, *(directory / name for name in ("scripts", "logs", "secrets"))):
                files.make_private_directory(each)
            for name in ("app", restart_state.NAME):  # of an earlier run: a program's files, what was restarted
                shutil.rmtree(str(directory / name), ignore_errors=True)
            forget_all_but_last(args)
            record.update(args["deployment"], args["host"], lambda known: take(known, args))
        say(taken=found)


def forget_all_but_last(args: Dict[str, Any]) -> None:
    """Of the temporary directories of earlier runs (Ray's logs are in them) the last one's is kept, as its logs are:
    a deployment that is stopped and run again every night would fill the disk."""
    last = (record.read(args["deployment"], args["host"]) or {}).get("ray_temp_dir")
    for path in ray_temp.directories(args["deployment"], args["host"], {}):
        if path != last:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else of this user reserves anything on this host meanwhile. Nothing of it stays."""
    path = Path("/tmp/fsd-%d.lock" % os.getuid())
    until = time.monotonic() + WAIT_SECONDS
    while True:
        descriptor = lockfile.take(path)
        if descriptor is not None:
            break
        if time.monotonic() >= until:
            raise RuntimeError("another command has been reserving GPUs here for %g s" % WAIT_SECONDS)
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # /tmp was cleaned meanwhile
            os.unlink(str(path))
        os.close(descriptor)


def conflicts(args: Dict[str, Any]) -> Iterator[Dict[str, str]]:
    """What the run wants and somebody has."""
    everyone = proc.scan()
    wanted = args["record"]
    gpus = set(wanted["gpus"]) if "gpus" in args["exclusive"] else set()
    numbers = set(wanted["ports"].values()) if "ports" in args["exclusive"] else set()
    for other in record.of_this_machine(args["host"]):
        if other.get("stopped_at") or other.get("boot_id") != record.boot_id():
            continue
        if (other.get("deployment"), other.get("host")) == (args["deployment"], args["host"]):
            if other.get("run_id") != args["run_id"]:
                yield from living(other, everyone)
            continue
        whose = who(other)
        for index in sorted(gpus & set(other.get("gpus") or ())):
            yield {"what": "GPU %d" % index, "by": whose}
        for port in sorted(numbers & set((other.get("ports") or {}).values())):
            yield {"what": "port %d" % port, "by": whose}
            numbers.discard(port)
    mine = "%s/" % args["deployment"]
    for each in ports.listening(everyone) if numbers else ():
        if each["port"] in numbers and not each["run"].startswith(mine):
            numbers.discard(each["port"])
            pid = " (pid %d)" % each["pid"] if each["pid"] else ""
            yield {"what": "port %d" % each["port"], "by": (each["command"] or "a process") + pid}


def living(other: Dict[str, Any], everyone: List[proc.Process]) -> Iterator[Dict[str, str]]:
    """The deployment itself, where another run of it lives here."""
    marker = "%s/%s" % (other.get("deployment"), other.get("run_id"))
    found = processes.ours(everyone, marker, processes.recorded(other))
    if found:
        yield {"what": "deployment %s" % other.get("deployment"), "by": who(other)}


def who(other: Dict[str, Any]) -> str:
    """A record's run in words."""
    since = other.get("started_at")
    when = time.strftime(", since %Y-%m-%d %H:%M:%S %z", time.localtime(since)) if since else ""
    return "deployment %s (run %s of %s%s)" % (
        other.get("deployment"), other.get("run_id"), other.get("operator") or "somebody", when,
    )  # fmt: skip


def take(known: Dict[str, Any], args: Dict[str, Any]) -> None:
    """Make the record this run's, and keep the one before for a release."""
    before = {name: value for name, value in known.items() if name != "before"}
    scripts.begin(known, args)
    known["before"] = before


def put_back(known: Dict[str, Any], before: Dict[str, Any]) -> None:
    """Make the record what it was."""
    known.clear()
    known.update(before)


def release(args: Dict[str, Any], directory: Path) -> None:
    """Put back what was there, if the record is still this run's and nothing was started."""
    known = record.read(args["deployment"], args["host"]) or {}
    if known.get("run_id") != args["run_id"] or known.get("processes") or "before" not in known:
        return
    before = known["before"]
    if before:
        record.update(args["deployment"], args["host"], lambda now: put_back(now, before))
        return
    for name in ("record.json", "record.lock"):
        with contextlib.suppress(OSError):
            os.unlink(str(directory / name))
    for each in (*(directory / name for name in ("scripts", "logs", "secrets")), directory, directory.parent):
        with contextlib.suppress(OSError):  # it holds something, the deployment's lock for one
            os.rmdir(str(each))
