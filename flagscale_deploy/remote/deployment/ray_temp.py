"""Make and find a run's temporary directory, `/tmp/fsd-<uid>-<8 hex>`: TMPDIR of its processes, and Ray's sessions.

It is in /tmp because a Unix socket's path has 107 bytes at most, which a path below a home directory would exceed, and
because sockets don't work in a home directory on NFS. Every local user may write in /tmp: a name there is used only
once it is verified as a directory of our own that is closed to all others, and where it is somebody else's, another
name is taken. The record and the file `temporary` of the state directory tell scripts and programs which; a claim in
the directory itself (`flagscale-deploy.json`: deployment, host) tells `cleanup` when the record is lost or is a later
run's.

Ray has a directory of its own in it: it opens its --temp-dir to everybody (mode 0777, seen with Ray 2.60).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

ROOT = "/tmp"
CLAIM = "flagscale-deploy.json"
CLAIM_BYTES = 64 << 10
RAY = "ray"
OTHER_NAMES = 16
"""How many other names are tried; each is one of 2^32 that nobody can foresee."""


def make(session: str, claim: Dict[str, str], recorded: Optional[str] = None) -> str:
    """Make the directory of a run, or take the one that was made before; return its path.

    `recorded` is what the run's record names. Raises OSError.
    """
    names = [os.path.basename(recorded)] if recorded and is_ours_by_name(recorded) else []
    names.append("fsd-%d-%s" % (os.getuid(), session))
    others = ("fsd-%d-%s" % (os.getuid(), os.urandom(4).hex()) for _ in range(OTHER_NAMES))
    for name in chain(names, others):
        path = os.path.join(ROOT, name)
        if _take(path, claim):
            return path
    raise FileExistsError("%s: other users have taken every name for a temporary directory that was tried" % ROOT)


def renew(directory: Path, run_id: str) -> None:
    """Make TMPDIR again if it was removed while the run goes on, as a job that cleans /tmp does. Raises OSError.

    `directory` is the state directory. Where another user has taken the name since, another one is taken. A script of
    the run may have made the directory by then, without a claim.
    """
    before = Path(os.environ.get("TMPDIR", ""))
    if not is_ours_by_name(str(before.parent)):
        return
    names = {"deployment": state.name_of(directory.parent), "host": state.name_of(directory), "run_id": run_id}
    if is_own_directory(str(before)) and belongs(str(before.parent), names["deployment"], names["host"]):
        return
    path = Path(make(before.parent.name.rpartition("-")[2], names)) / before.name
    path.mkdir(0o700, exist_ok=True)
    os.environ["TMPDIR"] = str(path)


def is_ours_by_name(path: str) -> bool:
    """Return whether a path is one that the launcher would make, for our own user."""
    return re.fullmatch(r"/tmp/fsd-%d-[0-9a-f]{8}" % os.getuid(), path) is not None


def is_own_directory(path: str) -> bool:
    """Return whether a path is a real directory of our own user; /tmp is everybody's to put links into."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def claim(path: str) -> Dict[str, object]:
    """Return whose a directory of ours is; empty if it does not say."""
    descriptor = files.open_own_directory(path)
    if descriptor is None:
        return {}
    try:
        return _claim_in(descriptor)
    finally:
        os.close(descriptor)


def belongs(path: str, deployment: str, host: str) -> bool:
    """Return whether a directory is claimed for a deployment on this host; a claim that names no host holds for any."""
    owner = claim(path)
    return owner.get("deployment") == deployment and owner.get("host", host) == host


def directories(deployment: str, host: str, record: Record) -> List[str]:
    """Return every temporary directory of a deployment that is there, the recorded one first."""
    claimed = [path for path in _named() if belongs(path, deployment, host)]
    recorded = record.get("ray_temp_dir")
    if isinstance(recorded, str) and is_own_directory(recorded):
        return [recorded, *(path for path in claimed if path != recorded)]
    return claimed


def sessions(path: str) -> List[str]:
    """Return the paths of Ray's sessions in a temporary directory, oldest first; `session_latest` is a link to one.

    Runs of earlier versions have them in the temporary directory itself.
    """
    paths: Dict[str, str] = {}
    for parent in (path, os.path.join(path, RAY)):
        try:
            with os.scandir(parent) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        paths.update((name, os.path.join(parent, name)) for name in names if name.startswith("session_"))
    return [paths[name] for name in sorted(paths)]


def _named() -> Iterable[str]:
    """Return the paths in /tmp that are ours by their names, sorted."""
    prefix = "fsd-%d-" % os.getuid()
    try:
        with os.scandir(ROOT) as entries:
            paths = sorted(os.path.join(ROOT, entry.name) for entry in entries if entry.name.startswith(prefix))
    except OSError:
        return []
    return [path for path in paths if is_ours_by_name(path)]


def _take(path: str, claim: Dict[str, str]) -> bool:
    """Make a directory, or take one of our own that belongs to the same; return whether it is ours now."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    descriptor = files.open_own_directory(path)
    if descriptor is None:
        return False
    try:
        owner = _claim_in(descriptor)
        if owner and (owner.get("deployment"), owner.get("host")) != (claim["deployment"], claim["host"]):
            return False
        files.write_atomically(Path(CLAIM), json.dumps(claim), dir_fd=descriptor)
        return True
    finally:
        os.close(descriptor)


def _claim_in(descriptor: int) -> Dict[str, object]:
    try:
        return json_files.read_object(CLAIM, CLAIM_BYTES, dir_fd=descriptor)
    except (OSError, ValueError):
        return {}
