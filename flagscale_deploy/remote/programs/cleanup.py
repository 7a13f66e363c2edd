"""Remove what a stopped deployment has left on this host.

It removes the temporary directories, the state directory, and its parents up to ~/.flagscale-deploy if they are empty;
nothing that isn't named as ours, nothing through a link. What is left in /dev/shm by processes that were gone before a
stop saw them stays: the names there don't tell whose they are (see `deployment/shared_memory.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Callable, List, Optional

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import boot_entry, lockfile, processes, ray_temp, record, state

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.record import Record
    from flagscale_deploy.remote.messages.stop import CleanupReply, KeptPath

send: Callable[[CleanupReply], None] = wire.send


def main(args: Target) -> None:
    """Remove what is left. What has been removed already may be removed again.

    Raises RuntimeError, with nothing removed, while processes of the deployment live.
    """
    deployment, host = args["deployment"], args["host"]
    deployed = record.read(deployment, host) or {}
    alive = processes.ours(processes.scan(), f"{deployment}/", processes.recorded(deployed))
    if alive:
        pids = ", ".join(str(process.pid) for process in alive[:10])
        raise RuntimeError(f"{len(alive)} processes of {deployment} still run (pid {pids}): stop it first")
    send(clean(deployment, host, deployed))


def clean(deployment: str, host: str, deployed: Record) -> CleanupReply:
    """Remove Ray's temporary directories, then the state that knows of them."""
    removed: List[str] = boot_entry.remove(deployment, host)
    kept: List[KeptPath] = []
    size = 0
    ray = ray_temp.directories(deployment, host, deployed)
    objections = {path: _ray_objection(path, deployment, host) for path in ray}
    own = str(state.directory(deployment, host))
    if os.path.lexists(own):
        objections[own] = "it is a link" if os.path.islink(own) else None
    for path, objection in objections.items():
        weight = _size(path)
        why = objection or _remove(path)
        if why:
            kept.append({"path": path, "why": why})
        else:
            removed.append(path)
            size += weight
    return {"removed": removed + _remove_empty_parents(deployment, host), "bytes": size, "kept": kept}


def _ray_objection(path: str, deployment: str, host: str) -> Optional[str]:
    """Return why a directory must stay: the record names Ray's files, but only a name of ours may be removed."""
    if not ray_temp.is_ours_by_name(path):
        return "flagscale-deploy did not create it; remove it yourself if it is not needed"
    if ray_temp.claim(path) and not ray_temp.belongs(path, deployment, host):
        return f"it belongs to the deployment {ray_temp.claim(path).get('deployment')}"
    return None


def _remove(path: str) -> Optional[str]:
    """Remove a directory, or as much of it as can be, and return what kept it. Links in it are not followed."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        return f"{error.filename or path}: {error.strerror or error}"
    return None


def _remove_empty_parents(deployment: str, host: str) -> List[str]:
    """Remove the directories above, if empty: on a shared home they hold those of other hosts."""
    removed = []
    _remove_stale_lock()
    for parent in (state.directory(deployment, host).parent, state.root()):
        with contextlib.suppress(OSError):  # not empty, or never there
            os.rmdir(parent)
            removed.append(str(parent))
    return removed


def _remove_stale_lock() -> None:
    """Remove the lock file of a `reserve` that was killed; nothing where one holds it just now."""
    path = state.reservation_lock()
    if os.path.lexists(path):
        with contextlib.suppress(OSError, lockfile.UnusableError):
            descriptor = lockfile.take(path)
            if descriptor is not None:
                os.unlink(path)
                os.close(descriptor)


def _size(path: str) -> int:
    """Return the bytes of the files under a path, links not followed."""
    size = 0
    for directory, _, files in os.walk(path):
        for file in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(directory, file)).st_size
    return size
