"""Where a deployment keeps what it leaves on a host. One directory a host: a shared home must not collide."""

import os
from pathlib import Path
from typing import List
from urllib.parse import quote


def root() -> Path:
    """`~/.flagscale-deploy`, by $HOME as a login shell has it."""
    return Path(os.path.expanduser("~")) / ".flagscale-deploy"


def directory(deployment: str, host: str) -> Path:
    """The state directory of a deployment on a host; `host` is the inventory name. Both are made safe as file names.

    Raises ValueError for a name that no file can have: what is removed later must never lie outside `root()`.
    """
    return root() / file_name(deployment) / file_name(host)


def every_record() -> List[Path]:
    """The record of every deployment under any name of a host: this machine's, or of others that share the home."""
    return sorted(root().glob("*/*/record.json"))


def records(host: str) -> List[Path]:
    """The record of every deployment that was recorded for this host."""
    return sorted(root().glob("*/%s/record.json" % file_name(host)))


def locks(host: str) -> List[Path]:
    """The lock files of deployments on this host, held or not."""
    return sorted(root().glob("*/%s/lock" % file_name(host)))


def file_name(name: str) -> str:
    """A name as that of a file, never a way out of where it lies. Raises ValueError for one that no file can have."""
    safe = quote(name, safe="")
    if safe in ("", ".", ".."):
        raise ValueError("%r cannot be a name" % name)
    return safe
