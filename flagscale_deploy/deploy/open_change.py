"""Begin a change of a deployment that runs, by what its hosts have recorded."""

from __future__ import annotations

from collections.abc import Iterable

from flagscale_deploy.deploy.authority import authority
from flagscale_deploy.deploy.change_steps import STAGE
from flagscale_deploy.deploy.group_acts import GroupActs, inspect_hosts
from flagscale_deploy.deploy.group_change import GroupChange
from flagscale_deploy.errors import CheckError, ConnectError, HostError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.ray_change import node_name
from flagscale_deploy.remote.messages.record import RecordedChange
from flagscale_deploy.transport.fleet import Fleet, answers


def open_change(
    fleet: Fleet, deployment: str, head: str, note: RecordedChange, say: Sink, *, may_be_lost: Iterable[str] = ()
) -> GroupChange:
    """Return a change of a deployment that runs, by the record of its head; the caller holds its lock.

    Hosts that `may_be_lost` may be out of reach. Raises CheckError where it does not run, ConnectError for another host
    that cannot be asked.
    """
    results = inspect_hosts(fleet, deployment, fleet.hosts, ask=False)
    records = {host: reply["record"] or {} for host, reply in answers(results).items()}
    decided = authority(head, {host: record for host, record in records.items() if record})
    record = decided.record
    if record is None or not decided.trusted or record.get("stopped_at") or "run_id" not in record:
        raise CheckError.at(deployment, decided.note or "it does not run", "start it with `run`")
    run_id, part = record["run_id"], set(record.get("hosts", ()))
    lost = [host for host, result in results.items() if isinstance(result, HostError) and host in part]
    for host in lost:
        error = results[host]
        if isinstance(error, HostError) and (host not in may_be_lost or not isinstance(error, ConnectError)):
            raise error
        say(Event(STAGE, "note", host, "is out of reach: nothing is done there"))
    hosts = [host for host, own in records.items() if own.get("run_id") == run_id and not own.get("stopped_at")]
    ended = [host for host in part if (own := records.get(host)) and (own.get("stopped_at") or not own.get("change"))]
    return GroupChange(
        GroupActs(fleet, deployment, run_id),
        note,
        sorted(hosts, key=lambda host: host != head),
        say,
        record,
        {server["name"]: server for server in record.get("instances", ())},
        {router["name"]: router for router in record.get("routers", ())},
        {node_name(host): host for host in hosts if "ray-worker" in records[host].get("roles", ())},
        frozenset(lost),
        ending="change" in record and bool(ended),
    )
