"""What a host is and what it has: one answer with the fields of `observation.Facts`. Changes nothing on the host."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterable
from urllib.parse import unquote

from flagscale_deploy.remote.deployment import boot_entry, leftovers, record
from flagscale_deploy.remote.engine import model_files
from flagscale_deploy.remote.system import capacity, environment, gpus, limits, network, ports, proc, tls_files
from flagscale_deploy.remote.system.background import Beside
from flagscale_deploy.remote.system.resolver import Lookups
from flagscale_deploy.remote.wire import say


def main(args: Dict[str, Any]) -> None:
    """Answers with the facts of this host, after 20 s at the latest.

    `args`: `host` (its inventory name), `venv`, `before_start`, `env` (the environment that scripts will run in),
    `models` (paths to look at), `boot` ("host" or "container" where it matters whether it comes back after a reboot).
    What waits for others (programs, name servers, disks) runs while /proc is read.
    """
    lookups = Lookups(socket.gethostname())
    devices = Beside(gpus.ask)
    versions = Beside(environment.observe, args.get("venv"), args.get("before_start"), args.get("env") or {})
    models = Beside(model_files.observe, args.get("models") or [])
    home = os.path.expanduser("~")
    everyone = proc.scan()
    facts = {**identity(), **_network(everyone), **capacity.observe(home), **limits.observe(home)}
    facts.update(leftovers.observe(args["host"], everyone), models=models.result(), **versions.result())
    facts["tls_files"] = tls_files.observe(args.get("tls_files") or [])
    facts["deployments"] = [deployment(path) for path in record.paths_here(args["host"])]
    facts.update(gpus.see(devices.result(), everyone)._asdict(), **lookups.result())
    facts["boot"], facts["boot_problem"] = boot_entry.way(args["boot"] == "container") if args.get("boot") else ("", "")
    say(**facts, clock=time.time())
    os._exit(0)  # at once: tidying up takes Python 2 ms, and a lookup that hangs may be in the resolver's hands


def identity() -> Dict[str, Any]:
    """Who we are here, and where."""
    return {
        "user": gpus.user_of(os.getuid()),
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "hostname": socket.gethostname(),
        "boot_id": record.boot_id(),
        "probe_python": sys.version.split()[0],
    }


def deployment(path: Path) -> Dict[str, Any]:
    """What a record says; of one that can't be read, `{"deployment": name, "broken": reason}`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = f"expected an object, found {type(found).__name__}"
    except (OSError, ValueError) as error:
        reason = str(error)
    return {"deployment": unquote(path.parent.parent.name), "broken": f"{path}: {reason}"}


def _network(everyone: Iterable[proc.Process]) -> Dict[str, Any]:
    return {
        "interfaces": network.interfaces(),
        "default_address": network.default_address(),
        "infiniband": network.infiniband(),
        "ports": ports.listening(everyone),
    }
