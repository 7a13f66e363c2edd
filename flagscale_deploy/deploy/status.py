"""The real state of a deployment, from the records and processes on its hosts; a server is ready only if it answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from flagscale_deploy.deploy.authority import authority
from flagscale_deploy.deploy.server_status import InstanceStatus, ray_loss, server_status, shared_hosts
from flagscale_deploy.deploy.serving import withdraw_unverified
from flagscale_deploy.deploy.token_looks import TokenLooks
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.entrances import entrances
from flagscale_deploy.remote.messages.record import Record, RecordedChange, RecordedFailure, RecordedVersions
from flagscale_deploy.remote.messages.run import RayNodesReply
from flagscale_deploy.remote.messages.status import INSPECT, InspectArguments, InspectReply
from flagscale_deploy.support.paths import DEPLOYMENT_NAME
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers

SCHEMA = 1
ASK_SECONDS = 60.0
MOST_OTHERS = 100
"""As many names a host sends (`remote/programs/inspect.py`)."""

HostState = Literal["running", "stopped", "absent", "dead", "UNKNOWN"]


@dataclass(frozen=True)
class HostStatus:
    """The state of a host: `processes` counts those of the deployment; UNKNOWN: the host could not be reached."""

    host: str
    state: HostState
    roles: tuple[str, ...] = ()
    processes: int = 0
    gpus: tuple[int, ...] = ()
    uptime: float | None = None
    versions: RecordedVersions | None = None
    problem: str = ""


@dataclass(frozen=True)
class Status:
    """The state of a deployment. `ray` are the nodes that its head counts, or None.

    Without `trusted` it is not the head's record that tells what the deployment is; `note` has whose.
    """

    deployment: str
    state: str
    run_id: str | None
    digest: str | None
    head: str | None
    operator: str | None
    started_at: float | None
    ray: RayNodesReply | None
    hosts: tuple[HostStatus, ...]
    instances: tuple[InstanceStatus, ...]
    routers: tuple[InstanceStatus, ...] = ()
    trusted: bool = True
    note: str = ""
    stopped_at: float | None = None
    diagnosis: Diagnosis | None = None
    """Why it is unwell or dead, if the logs show it."""
    secret_hash: str = ""
    """What its record has of its secrets (`deploy/secret_hash.py`); not for other eyes."""
    failure: RecordedFailure | None = None
    """When and why the last run failed, which was stopped for it."""
    others: tuple[str, ...] = ()
    """The deployments that there are on hosts that have none of this name."""
    change: RecordedChange | None = None
    """What is changed of it, or was when its operator went away."""

    @property
    def well(self) -> bool:
        """Return whether nothing is known to be dead or unwell."""
        states = {self.state, *(server.state for server in (*self.instances, *self.routers))}
        return not states & {"dead", "unwell", "restarting", "gave up"}

    @property
    def entrances(self) -> tuple[InstanceStatus, ...]:
        """Return the servers for clients: a model's router, else its instances."""
        return entrances(self.instances, self.routers)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names under which its instances serve."""
        return tuple(dict.fromkeys(server.served_name for server in self.instances))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return the URLs for clients."""
        return tuple(dict.fromkeys(server.endpoint for server in self.entrances if server.endpoint))

    @property
    def live_processes(self) -> int:
        """Return how many processes of the deployment run on all hosts."""
        return sum(host.processes for host in self.hosts)

    @property
    def exit_code(self) -> int:
        """Return 0 when ready, finished, stopped or absent, 3 when something is UNKNOWN, else 1."""
        return {"ready": 0, "finished": 0, "stopped": 0, "absent": 0, "UNKNOWN": 3}.get(self.state, 1)

    @property
    def failure_remedy(self) -> str:
        """Return what to do after a failure. A host may have written anything into its record: it is quoted as such."""
        remedy = self.failure["remedy"] if self.failure else ""
        return f"its record says: {remedy}" if remedy else "`logs --diagnose`, with the same hosts and name, says why"

    @property
    def unknown_name(self) -> Fault | None:
        """Return the fault of a name that no host has, with those that there are; None where a host may have it."""
        if self.state != "absent":
            return None
        there = f"there are: {', '.join(self.others)}" if self.others else "there is no other one"
        problem = f"no host has a deployment of this name; {there}"
        remedy = suggest(self.deployment, self.others, "check --name and the hosts, or start it with `run`")
        return Fault(self.deployment, problem, remedy)

    def json(self) -> dict[str, object]:
        """Return what `status --json` prints."""
        content = asdict(self)
        del content["secret_hash"]
        return {"schema": SCHEMA, **content}


def look(
    fleet: Fleet,
    deployment: str,
    head: str,
    *,
    ask: bool = True,
    tokens: TokenLooks | None = None,
    hosts: Iterable[str] | None = None,
    now: float | None = None,
) -> Status:
    """Inspect a deployment on all hosts (or those named).

    With `ask`, request a token from every server, and the nodes from Ray.

    `head` is the host whose record tells what the deployment is. `tokens` tells of earlier looks how seldom a token is
    requested.
    """
    asks_token = tokens is None or tokens.due

    def arguments(host: Host) -> InspectArguments:
        args: InspectArguments = {"deployment": deployment, "host": host.name, "ask": ask}
        if not asks_token:
            args["token"] = False
        return args

    results = fleet.call(INSPECT, arguments, timeout=ASK_SECONDS, hosts=hosts)
    if tokens is not None:
        tokens.note(answers(results), asks_token)
    withdraw_unverified(fleet, deployment, head, results)
    return summarize(deployment, head, results, time.time() if now is None else now)


def summarize(deployment: str, head: str, results: Mapping[str, InspectReply | HostError], now: float) -> Status:
    """Combine the hosts' replies (of `remote/programs/inspect.py`) into a status.

    Each reply counts for its own host; which servers there are, and what Ray counts, is the head's to say.
    """
    replies = answers(results)
    records = {name: reply["record"] for name, reply in replies.items() if reply["record"]}
    decided = authority(head, records)
    hosts = tuple(_host(name, result, now, decided.differing.get(name, "")) for name, result in results.items())
    record: Record = decided.record or {}
    change = record.get("change")
    shared = shared_hosts(record)
    instances, routers = (
        tuple(_as_changed(server_status(server, results, shared), change) for server in servers)
        for servers in (record.get("instances", ()), record.get("routers", ()))
    )
    counting = replies.get(str(record.get("head")))
    ray = counting["ray"] if counting else None
    return Status(
        deployment=deployment,
        state="UNKNOWN" if decided.note else _overall(hosts, instances + routers, decided.record, ray),
        run_id=record.get("run_id"),
        digest=record.get("digest"),
        head=record.get("head"),
        operator=record.get("operator"),
        started_at=record.get("started_at"),
        stopped_at=record.get("stopped_at"),
        ray=ray,
        hosts=hosts,
        instances=instances,
        routers=routers,
        trusted=decided.trusted,
        note=decided.note,
        secret_hash=record.get("secret_hash", ""),
        failure=record.get("failure"),
        others=_other_names(replies),
        change=change,
    )


def _as_changed(server: InstanceStatus, change: RecordedChange | None) -> InstanceStatus:
    """Return the status of a server, which is not dead where it is changed and does not run just now."""
    if change is None or server.name not in change["groups"] or server.state != "dead":
        return server
    return replace(server, state="changing", problem="it does not run: it is changed")


def _other_names(replies: Mapping[str, InspectReply]) -> tuple[str, ...]:
    """Return the deployments that hosts name where they have none of this name, each MOST_OTHERS at most."""
    names = (name for reply in replies.values() for name in reply.get("others", ())[:MOST_OTHERS])
    return tuple(sorted(set(filter(DEPLOYMENT_NAME.fullmatch, names))))


def _host(name: str, result: InspectReply | HostError, now: float, differing: str) -> HostStatus:
    if isinstance(result, HostError):
        return HostStatus(name, "UNKNOWN", problem=result.problem)
    record = result["record"]
    if record is None:
        return HostStatus(name, "running" if result["live"] else "absent", processes=result["live"])
    stopped = bool(record.get("stopped_at")) or ("change" in record and not record.get("processes"))
    idle: HostState = "dead" if record.get("roles", True) else "absent"  # a head that has no part in it
    state: HostState = "running" if result["live"] else "stopped" if stopped else idle
    gone = [
        process["role"]
        for process in result["processes"]
        if process["role"] in ("engine", "spare") and not process["alive"]
    ]
    problem = f"{counted(len(gone), 'engine process')} gone" if gone else ""
    problem = problem or ray_loss(result)
    finished = any(server.get("finished") for server in result["instances"].values())
    return HostStatus(
        host=name,
        state=state,
        roles=tuple(dict.fromkeys(record.get("roles", ()))),
        processes=result["live"],
        gpus=tuple(record.get("gpus", ())),
        uptime=max(0.0, now - record["started_at"]) if state == "running" and "started_at" in record else None,
        versions=record.get("versions"),
        problem=differing or ("" if stopped or finished else problem),
    )


def _overall(
    hosts: tuple[HostStatus, ...],
    instances: tuple[InstanceStatus, ...],
    record: Record | None,
    ray: RayNodesReply | None,
) -> str:
    host_states, states = {host.state for host in hosts}, {server.state for server in instances}
    if states & {"dead", "gave up"} or (instances and "dead" in host_states and states != {"stopped"}):
        return "unwell" if states & {"ready", "unwell"} else "dead"
    if "UNKNOWN" in host_states | states:
        return "UNKNOWN"
    if record is None:
        return "absent" if host_states == {"absent"} else "leftovers"
    if states <= {"ready", "changing", "starting"} and "change" in record:
        return "changing"
    if states == {"ready"}:
        return "unwell" if ray and ray.get("missing") else "ready"
    if states == {"finished"} and "running" in host_states:
        return "finished"
    if host_states <= {"stopped", "absent"}:
        return "failed" if record.get("failure") else "stopped"
    return next((state for state in ("unwell", "restarting", "starting") if state in states), "leftovers")
