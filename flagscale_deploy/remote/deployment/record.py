"""`record.json`: what a host knows of a deployment. Written whole, under a lock: readers never see half of one."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files

Record = Dict[str, Any]


def boot_id() -> str:
    """The kernel's id of this boot; a pid means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(deployment: str, host: str) -> Optional[Record]:
    """The record, or None where there is none or it is broken."""
    return _load(state.directory(deployment, host) / "record.json")


def of_this_machine(host: str) -> List[Record]:
    """The records of deployments on this machine, whatever its name is in their inventories."""
    return [each for each in map(_load, paths_here(host)) if each is not None]


def paths_here(host: str) -> List[Path]:
    """The files of the records that `host` has, and of those that this machine has under other names."""
    named = state.records(host)
    others = [path for path in state.every_record() if path not in named and _is_here(_load(path) or {})]
    return named + others


def _is_here(found: Record) -> bool:
    """Machines that share a home directory differ in their boot, and the names that they have for themselves."""
    return found.get("boot_id") == boot_id() and found.get("machine") == os.uname().nodename


def _load(path: Path) -> Optional[Record]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def update(deployment: str, host: str, change: Callable[[Record], None]) -> Record:
    """Change the record (an empty one where there is none) and return it."""
    directory = state.directory(deployment, host)
    descriptor = os.open(str(directory / "record.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = read(deployment, host) or {}
        change(record)
        files.write_atomically(directory / "record.json", json.dumps(record, indent=1))
    return record
