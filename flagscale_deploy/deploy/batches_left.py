"""Tell which batches put back a change, or finish one that its operator has left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from flagscale_deploy.deploy.group_change import GroupChange
from flagscale_deploy.plan.change_order import Batch, change_order
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from flagscale_deploy.plan.ray_change import node_host
from flagscale_deploy.plan.server_change import Difference, Kind, ServerChange


def way_back(now: KeptRun, before: KeptRun, change: GroupChange, touched: Collection[str]) -> tuple[Batch, ...]:
    """Return the batches that make the touched groups again what they were, in this order where places allow it."""
    old, new = ({server["name"]: server for server in run["servers"]} for run in (before, now))
    there = {name: server for name, server in old.items() if name not in touched}
    there |= {name: new.get(name, _placeless(name)) for name in touched if name in new or name in change.servers}
    kinds: dict[str, Kind] = {
        name: "restarted" if name in there and name in old else "added" if name in old else "removed"
        for name in dict.fromkeys(touched)
        if name in there or name in old
    }
    servers = tuple(ServerChange(name, kind) for name, kind in kinds.items())
    nodes = tuple(_node_back(name, now, before) for name in dict.fromkeys(touched) if node_host(name) is not None)
    changes = Difference(before["run_id"], servers, nodes=nodes)
    return change_order({**now, "servers": [*there.values()]}, before, changes)


def what_is_left(
    before: KeptRun,
    to: KeptRun,
    difference: Difference,
    change: GroupChange,
    at_once: int,
    surge: Sequence[KeptServer] = (),
) -> tuple[Batch, ...]:
    """Return the batches of a change that its operator has left, of which some groups are done.

    Groups that were being changed come first: they may not serve, so that they are out is no new outage. A group that
    was started for a while serves until the end; one of `surge` is started at first.
    """
    done = change.note["done"]
    out = change.note["groups"] if change.note["step"] != "drain" else []
    old, new = ({server["name"]: server for server in run["servers"]} for run in (before, to))
    there = {name: new.get(name, server) for name, server in old.items() if name not in done or name in new}
    there |= {name: server for name, server in new.items() if name in done}
    coming = {server["name"] for server in surge if server["name"] not in done}
    there |= {
        name: _placeless(name, server.get("model", "") if name in done else "")
        for name, server in change.servers.items()
        if name not in there and name not in (*old, *new) and name not in coming
    }
    there = {name: old[name] if name in old and name not in done else server for name, server in there.items()}
    there = dict(sorted(there.items(), key=lambda item: item[0] not in change.note["groups"]))
    servers, nodes = (
        tuple(part for part in parts if part.name not in done) for parts in (difference.servers, difference.nodes)
    )
    left = replace(difference, servers=servers, nodes=nodes)
    batches = change_order({**before, "servers": [*there.values()]}, to, left, at_once=at_once, surge=surge)
    return tuple(replace(batch, outage=()) if {*batch.groups} <= {*out} else batch for batch in batches)


def _node_back(name: str, now: KeptRun, before: KeptRun) -> ServerChange:
    """Return what has to become of a Ray node that a change has touched."""
    host = node_host(name) or ""
    was, is_now = (host in run["ray"]["nodes"] for run in (before, now))
    kind: Kind = "restarted" if was and is_now else "added" if was else "removed"
    return ServerChange(name, kind, (), (host,))


def hosts_of(server: KeptServer) -> set[str]:
    """Return the hosts of a group."""
    return {*server["gpus"], *(rank["host"] for rank in server["ranks"])}


def _placeless(name: str, model: str = "") -> KeptServer:
    """Return a server of which nothing is kept: one that was there only while others were changed."""
    return {"name": name, "model": model, "engine": "", "gpus": {}, "ranks": []}
