"""Read and write `record.json`, what a host knows of a deployment: under a lock, and never in part.

A record that is no JSON, or in which something is of another type than programs here rely on, is broken: it counts as
none, and `probe` reports it.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, cast

from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files, json_files

if TYPE_CHECKING:
    from pathlib import Path

    from flagscale_deploy.remote.messages.record import Record


SERVERS = ("engine", "spare", "router", "gate")
"""Roles of the processes that serve, other than Ray's."""
_NUMBER, _OPTIONAL = (int, float), (int, type(None))
_SERVER = {
    "name": str, "model": str, "driver": str, "port": _OPTIONAL, "local_url": str, "served_name": str, "script": str,
    "certificate": (str, type(None)), "engine": str, "addresses": {"": str},
}  # fmt: skip
_SHAPE: Dict[str, Any] = {
    "deployment": str, "host": str, "run_id": str, "operator": str, "boot_id": str, "machine": str, "gpus": [int],
    "ports": ({"": int}, [int]), "ray": {"enabled": bool}, "instances": [_SERVER], "routers": [_SERVER],
    "started_at": _NUMBER, "oom_kills": _OPTIONAL, "ray_temp_dir": str, "segments": {"": [int]}, "stopped_at": _NUMBER,
    "head": str, "hosts": [str], "failure": {"at": _NUMBER, "cause": str, "remedy": str},
    "configuration": str,
    "change": {
        "run_id": str, "operator": str, "base": str, "groups": [str], "step": str, "done": [str], "secrets": bool,
        "at": _NUMBER,
    },
    "processes": [{"role": str, "pid": int, "start_ticks": _OPTIONAL, "boot_id": str, "log": str, "script": str}],
}  # fmt: skip
_SHAPE["before"] = dict(_SHAPE)


def boot_id() -> str:
    """Return the kernel's id of this boot; a pid means nothing in another one."""
    return files.read_text("/proc/sys/kernel/random/boot_id").strip()


def read(deployment: str, host: str) -> Optional[Record]:
    """Return the record, or None where there is none or it is broken."""
    return _load(state.directory(deployment, host) / "record.json") if state.exists() else None


def of_this_machine(host: str) -> List[Record]:
    """Return the records of deployments on this machine, whatever its name is in their inventories."""
    return [record for record in map(_load, paths_here(host)) if record is not None]


def paths_here(host: str) -> List[Path]:
    """Return the records' files that `host` has, and those that this machine has under other names."""
    if not state.exists():
        return []
    named = state.records(host)
    others = [path for path in state.every_record() if path not in named and _is_here(_load(path) or {})]
    return named + others


def _is_here(record: Record) -> bool:
    """Return whether a record is this machine's.

    Machines that share a home directory differ in their boot, and the names that they have for themselves.
    """
    return record.get("boot_id") == boot_id() and record.get("machine") == os.uname().nodename


def _load(path: Path) -> Optional[Record]:
    try:
        return load(path)
    except (OSError, ValueError):
        return None


def ports(deployed: Record) -> Set[int]:
    """Return the ports that a record takes; one of an earlier version has a list of them."""
    recorded = deployed.get("ports") or ()
    return set(recorded.values() if isinstance(recorded, dict) else recorded)


def local_urls(deployed: Record, host: str) -> Set[str]:
    """Return where servers of the deployment answer on this host, by a record of its own."""
    servers = [*deployed.get("instances", []), *deployed.get("routers", [])]
    urls = {server.get("local_url", "") for server in servers if server.get("driver") == host}
    ranks = (rank for server in servers for rank in (*server.get("ranks", []), *server.get("spares", [])))
    urls.update(rank.get("local_url", "") for rank in ranks if rank.get("host") == host)
    return urls - {""}


def load(path: Path) -> Record:
    """Return the record in a file. Raises OSError, and ValueError where it is broken."""
    content = json_files.read_object(str(path))
    problem = json_files.mismatch(content, _SHAPE)
    if problem:
        raise ValueError(problem)
    return cast("Record", content)


def update(deployment: str, host: str, change: Callable[[Record], Record]) -> Record:
    """Replace the record (an empty one where there is none) by what `change` makes of it, and return that."""
    directory = state.directory(deployment, host)
    descriptor = os.open(str(directory / "record.lock"), files.LOCK, 0o600)
    with os.fdopen(descriptor, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = change(read(deployment, host) or {})
        files.write_atomically(directory / "record.json", json.dumps(record, indent=1))
    return record
