"""Note in the record on this host what is changed of a running deployment, and which groups there are.

What a group needs that joins is looked at and taken under one lock of this host and user, as `reserve` does it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record, restart_permits
from flagscale_deploy.remote.deployment.reservation import alone, conflicts

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.change import ChangeRecordArguments, ChangeRecordReply
    from flagscale_deploy.remote.messages.record import Record, RecordedServer
    from flagscale_deploy.remote.messages.run import ReserveArguments

send: Callable[[ChangeRecordReply], None] = wire.send


def main(args: ChangeRecordArguments) -> None:
    """Change the record; nothing for an operator who has gone, or where others have what a group needs."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    if deployed.get("run_id") != args["run_id"] or deployed.get("stopped_at"):
        raise RuntimeError("run %s of %s does not run here" % (args["run_id"], args["deployment"]))
    with alone():
        taken = list(conflicts(needs(args)) if "join" in args else ())
        if wire.input_ended():
            return
        if not taken:
            for script in args.get("scripts", []):
                restart_permits.of(args["deployment"], args["host"], args["run_id"], script).begin_anew()
            record.update(args["deployment"], args["host"], lambda before: changed(before, args))
    send({"taken": taken})


def needs(args: ChangeRecordArguments) -> ReserveArguments:
    """Return what is to be free of other deployments here."""
    return {
        "deployment": args["deployment"],
        "host": args["host"],
        "run_id": args["run_id"],
        "record": args["join"],
        "exclusive": args.get("exclusive", []),
    }


def changed(before: Record, args: ChangeRecordArguments) -> Record:
    """Return the record after the change; as it is where another run has taken the place."""
    if before.get("run_id") != args["run_id"]:
        return before
    after: Record = {**before}
    if "change" in args:
        after.pop("change", None)
        if args["change"] is not None:
            after["change"] = {**args["change"], "at": time.time()}
    for name in args.get("drop", []):
        after = without(after, name)
    return joined(after, args["join"]) if "join" in args else after


def joined(before: Record, part: Record) -> Record:
    """Return the record with the groups of another one, each in the place of that of its name."""
    servers: List[RecordedServer] = [*before.get("instances", [])]
    for server in part["instances"]:
        names = [other["name"] for other in servers]
        if server["name"] in names:
            servers[names.index(server["name"])] = server
            before = without(before, server["name"])
        else:
            servers.append(server)
    roles = [*before.get("roles", []), *part["roles"]]
    after: Record = {
        **before,
        "instances": servers,
        "roles": list(dict.fromkeys(roles)),
        "ports": {**before.get("ports", {}), **part["ports"]},
    }
    return with_gpus(after)


def without(before: Record, name: str) -> Record:
    """Return the record without a group, its ports and its GPUs."""
    servers = [server for server in before.get("instances", []) if server["name"] != name]
    ports = {use: port for use, port in before.get("ports", {}).items() if not f"{use} ".startswith(name + " ")}
    return with_gpus({**before, "instances": servers, "ports": ports})


def with_gpus(before: Record) -> Record:
    """Return the record with the GPUs that its groups have here."""
    host = before["host"]
    gpus = {index for server in before["instances"] for index in server["gpus"].get(host, [])}
    return {**before, "gpus": sorted(gpus)}
