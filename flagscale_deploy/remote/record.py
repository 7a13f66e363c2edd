"""`record.json`: what a host knows of a deployment. Written whole, under a lock: readers never see half of one."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from flagscale_deploy.remote import state

Record = Dict[str, Any]


def boot_id() -> str:
    """The kernel's id of this boot; a pid means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(deployment: str, host: str) -> Optional[Record]:
    """The record, or None where there is none or it is broken."""
    try:
        found = json.loads((state.directory(deployment, host) / "record.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def update(deployment: str, host: str, change: Callable[[Record], None]) -> Record:
    """Change the record (an empty one where there is none) and return it."""
    directory = state.directory(deployment, host)
    with open(str(directory / "record.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = read(deployment, host) or {}
        change(record)
        fresh = directory / "record.json.new"
        fresh.write_text(json.dumps(record, indent=1))
        os.replace(str(fresh), str(directory / "record.json"))
    return record
