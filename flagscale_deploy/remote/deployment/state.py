"""Name the directories and files of a deployment on a host. One directory a host: a shared home must not collide."""

import os
from pathlib import Path
from typing import List
from urllib.parse import quote


def root() -> Path:
    """Return `~/.flagscale-deploy`, by $HOME as a login shell has it."""
    return Path(os.path.expanduser("~")) / ".flagscale-deploy"


def directory(deployment: str, host: str) -> Path:
    """Return the state directory of a deployment on a host; `host` is the inventory name.

    Both are made safe as file names. Raises ValueError for a name that no file can have: what is removed later must
    never lie outside `root()`.
    """
    return root() / file_name(deployment) / file_name(host)


def every_record() -> List[Path]:
    """Return the record of every deployment under any name of a host, also of others that share the home."""
    return sorted(root().glob("*/*/record.json"))


def records(host: str) -> List[Path]:
    """Return the record of every deployment that was recorded for this host."""
    return sorted(root().glob("*/%s/record.json" % file_name(host)))


def locks(host: str) -> List[Path]:
    """Return the lock files of deployments on this host, held or not."""
    return sorted(root().glob("*/%s/lock" % file_name(host)))


def file_name(name: str) -> str:
    """Return a name as that of a file, never a way out of its folder. Raises ValueError where no file can have it."""
    safe = quote(name, safe="")
    if safe in ("", ".", ".."):
        raise ValueError("%r cannot be used as a name" % name)
    return safe
