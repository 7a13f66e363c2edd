"""Probe a host: what it is and has. Changes nothing on the host."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, cast

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import boot_entry, kept, leftovers, record, state
from flagscale_deploy.remote.engine import model_files
from flagscale_deploy.remote.system import capacity, environment, gpus, limits, network, ports, proc, tls_files
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.system.resolver import Lookups

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import (
        ProbeArguments,
        ProbedGpus,
        ProbedIdentity,
        ProbedNetwork,
        ProbedRecord,
        ProbeReply,
    )

send: Callable[[ProbeReply], None] = wire.send


def main(args: ProbeArguments) -> None:
    """Send the facts of this host, after 20 s at the latest.

    What waits for others (programs, name servers, disks) runs while /proc is read.
    """
    lookups = Lookups(socket.gethostname())
    devices = Background(gpus.ask)
    variables, exports = args.get("env") or {}, args.get("exports") or ""
    versions = Background(environment.observe, args.get("venv"), args.get("before_start"), variables, exports)
    models = Background(model_files.observe, args.get("models") or [])
    home = os.path.expanduser("~")
    everyone = proc.scan()
    boot, boot_problem = boot_entry.mechanism(args["boot"] == "container") if args.get("boot") else ("", "")
    reply: ProbeReply = {
        **identity(),
        **_network(everyone),
        **capacity.observe(home),
        **limits.observe(home),
        **leftovers.observe(args["host"], everyone),
        "models": models.result(),
        **versions.result(),
        "tls_files": tls_files.observe(args.get("tls_files") or []),
        "deployments": [deployment(path) for path in record.paths_here(args["host"])],
        **_gpus(gpus.see(devices.result(), everyone)),
        **lookups.result(),
        "kept": kept_run(args),
        "boot": boot,
        "boot_problem": boot_problem,
        "clock": time.time(),
    }
    send(reply)
    os._exit(0)  # at once: tidying up takes Python 2 ms, and a lookup that hangs may be in the resolver's hands


def identity() -> ProbedIdentity:
    """Return who we are here, and where."""
    return {
        "user": gpus.user_of(os.getuid()),
        "uid": os.getuid(),
        "home": os.path.expanduser("~"),
        "hostname": socket.gethostname(),
        "boot_id": record.boot_id(),
        "probe_python": sys.version.split()[0],
    }


def deployment(path: Path) -> ProbedRecord:
    """Read a record; of one that can't be read, return why."""
    try:
        return cast("ProbedRecord", record.load(path))
    except (OSError, ValueError) as error:
        reason = str(error)
    return {"deployment": state.name_of(path.parent.parent), "broken": f"{path}: {reason}"}


def kept_run(args: ProbeArguments) -> str:
    """Return what is kept of the configuration that the planned deployment has, if this host speaks for it.

    It was not stopped; its configuration is that of its last update, else of the run.
    """
    deployed = record.read(args["deployment"], args["host"]) if args.get("deployment") else None
    if not deployed or deployed.get("stopped_at") or deployed.get("boot_id") != record.boot_id():
        return ""
    asked = args.get("hosts", ())
    speaker = next((name for name in (deployed.get("head"), *deployed.get("hosts", ())) if name in asked), None)
    if speaker != args["host"]:
        return ""
    running = deployed.get("configuration") or deployed.get("run_id", "")
    try:
        return kept.read(state.directory(args["deployment"], args["host"]), running)
    except (OSError, ValueError):
        return ""


def _gpus(seen: gpus.Seen) -> ProbedGpus:
    return {"gpus": seen.gpus, "gpu_error": seen.gpu_error, "driver_version": seen.driver_version}


def _network(everyone: Iterable[proc.Process]) -> ProbedNetwork:
    return {
        "interfaces": network.interfaces(),
        "default_address": network.default_address(),
        "infiniband": network.infiniband(),
        "ports": ports.listening(everyone),
    }
