"""Note in the record on this host what is changed of a running deployment, and which groups there are.

What a group needs that joins is looked at and taken under one lock of this host and user, as `reserve` does it. All of
it may be done again where it was not done to the end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import before_change, history, kept, record, restart_permits, scripts, state
from flagscale_deploy.remote.deployment.reservation import alone, conflicts

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.change import ChangeEvent, ChangeRecordArguments, ChangeRecordReply
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.record import Record, RecordedServer
    from flagscale_deploy.remote.messages.run import ReserveArguments

send: Callable[[ChangeRecordReply], None] = wire.send

COMMON = ("configuration", "digest", "head", "hosts", "instances", "routers", "secret_hash", "secrets")
"""Keys of a record that a change may replace."""
FRONTS = ("router", "gate")
"""Roles of what stands before groups."""
LONGEST_REASON = 2000
"""Characters of what the history says of a change; as many are taken from a host (`deploy/history.py`)."""


def main(args: ChangeRecordArguments) -> None:
    """Change the record; nothing for an operator who has gone, or where others have what a group needs."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    if deployed.get("run_id") != args["run_id"] or deployed.get("stopped_at"):
        raise RuntimeError("run %s of %s does not run here" % (args["run_id"], args["deployment"]))
    refuse_wrong(deployed, args)
    with alone():
        taken = list(conflicts(needs(args)) if "join" in args else ())
        if wire.input_ended():
            return
        if not taken:
            carry_out(state.directory(args["deployment"], args["host"]), args)
    send({"taken": taken})


def refuse_wrong(deployed: Record, args: ChangeRecordArguments) -> None:
    """Raise RuntimeError for the end of a change other than the one under way, and for keys that no change replaces."""
    under_way = deployed.get("change")
    if under_way and "event" in args and args["event"]["run_id"] != under_way["run_id"]:
        raise RuntimeError("%s is changed by %s, not by %s" % (
            args["deployment"], under_way["run_id"], args["event"]["run_id"],
        ))  # fmt: skip
    wrong = sorted(args.get("common", {}).keys() - set(COMMON))
    if wrong:
        raise RuntimeError("%s of a record cannot be changed" % ", ".join(wrong))


def carry_out(directory: Path, args: ChangeRecordArguments) -> None:
    """Do what is asked for, in the order that RecordChange has."""
    texts = args.get("files", {})
    before_change.carry_out(directory, args.get("before"), args.get("scripts", []))
    for script in args.get("scripts", []):
        restart_permits.of(args["deployment"], args["host"], args["run_id"], script).begin_anew()
    scripts.put_all(directory, texts)
    after = record.update(args["deployment"], args["host"], lambda before: changed(before, args))
    if any(name.startswith(kept.FOLDER + "/") for name in texts):
        kept.forget_old(directory, kept.named_by(after))
    if "event" in args:
        note(args, args["event"])


def note(target: Target, event: ChangeEvent) -> None:
    """Note in the history that a change is over."""
    reason = wire.cut(event["reason"], LONGEST_REASON - 1)
    history.note_once(target, event["event"], event["run_id"], by=event["by"], reason=reason, took=event["took"])


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
    if "join" in args:
        after = joined(after, args["join"])
    common = args.get("common", {})
    after = {**after, **common}
    if "routers" in common:
        after = with_roles(after)
    return with_gpus(after) if "instances" in common else after


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


def with_roles(before: Record) -> Record:
    """Return the record without the roles of a router, or the gate, that is not here any more."""
    fronts = [front["name"] for front in before["routers"] if front["driver"] == before["host"]]
    here = {"gate" if name == "gate" else "router" for name in fronts}
    return {**before, "roles": [role for role in before.get("roles", []) if role not in FRONTS or role in here]}


def with_gpus(before: Record) -> Record:
    """Return the record with the GPUs that its groups have here."""
    host = before["host"]
    gpus = {index for server in before["instances"] for index in server["gpus"].get(host, [])}
    return {**before, "gpus": sorted(gpus)}
