"""Find Ray's temporary directories of a deployment: `/tmp/fsd-<uid>-<8 hex>`, each with a claim that names its owner.

The launcher writes the claim (`flagscale-deploy.json`: deployment, host) into the directory when it makes it, so that a
directory whose record is lost or was replaced by a later run can still be found.
"""

from __future__ import annotations

import json
import os
import re
import stat
from glob import glob
from typing import TYPE_CHECKING, Dict, List

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import Record

CLAIM = "flagscale-deploy.json"


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
    """Return whose a directory is; empty if it does not say."""
    try:
        with open(os.path.join(path, CLAIM), encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def belongs(path: str, deployment: str, host: str) -> bool:
    """Return whether a directory is claimed for a deployment on this host; a claim that names no host holds for any."""
    owner = claim(path)
    return owner.get("deployment") == deployment and owner.get("host", host) == host


def directories(deployment: str, host: str, record: Record) -> List[str]:
    """Return every temporary directory of a deployment that is there, the recorded one first."""
    claimed = [
        path
        for path in sorted(glob("/tmp/fsd-%d-*" % os.getuid()))
        if is_ours_by_name(path) and is_own_directory(path) and belongs(path, deployment, host)
    ]
    recorded = record.get("ray_temp_dir")
    if isinstance(recorded, str) and is_own_directory(recorded):
        return [recorded, *(path for path in claimed if path != recorded)]
    return claimed
