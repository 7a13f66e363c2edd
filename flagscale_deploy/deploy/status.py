"""The real state of a deployment, from the records and processes on its hosts; a server is ready only if it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from flagscale_deploy.deploy.server_state import InstanceState, server_state
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import HostError
from flagscale_deploy.plan.model import entrances
from flagscale_deploy.remote.messages.record import Record, RecordedServer, RecordedVersions
from flagscale_deploy.remote.messages.run import RayNodesReply
from flagscale_deploy.remote.messages.status import INSPECT, InspectedRestarts, InspectedServer, InspectReply
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers

SCHEMA = 1
ASK_SECONDS = 60.0
FULL = 0.99
"""Used part of a KV cache from which on it counts as full."""

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
class InstanceStatus:
    """The state of an instance or router: ready means that it answered a one-token completion just now.

    A user's own program is ready when its port is served (`remote/engine/program.py`), or, without a port, while it
    runs; it is finished when it has ended with status 0.
    """

    name: str
    model: str
    replica: int | None
    """None for the router of the model."""
    state: InstanceState
    driver: str
    hosts: tuple[str, ...]
    gpus: Mapping[str, tuple[int, ...]]
    endpoint: str
    served_name: str
    problem: str = ""
    metrics: Mapping[str, float] | None = None
    """Metrics of an engine that answers (`remote/engine/metrics.py`); `kv_cache` is the used part, 0 to 1."""
    restarts: int | None = None
    """How often its supervisor has restarted it; None without a supervisor."""
    last_restart: float | None = None
    """Unix time of the last restart."""


@dataclass(frozen=True)
class Status:
    """The state of a deployment. `ray` are the nodes that its head counts, or None."""

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
    diagnosis: Diagnosis | None = None
    """Why it is unwell or dead, if the logs show it."""

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
    def live_processes(self) -> int:
        """Return how many processes of the deployment run on all hosts."""
        return sum(host.processes for host in self.hosts)

    @property
    def exit_code(self) -> int:
        """Return 0 when ready, finished or stopped, 3 when something is UNKNOWN, else 1."""
        return {"ready": 0, "finished": 0, "stopped": 0, "absent": 0, "UNKNOWN": 3}.get(self.state, 1)

    def json(self) -> dict[str, object]:
        """Return what `status --json` prints."""
        return {"schema": SCHEMA, **asdict(self)}


def look(fleet: Fleet, deployment: str, *, ask: bool = True, now: float | None = None) -> Status:
    """Inspect a deployment on all hosts. With `ask`, request a token from every server, and the nodes from Ray."""
    results = fleet.call(
        INSPECT, lambda host: {"deployment": deployment, "host": host.name, "ask": ask}, timeout=ASK_SECONDS
    )
    return summarize(deployment, results, time.time() if now is None else now)


def summarize(deployment: str, results: Mapping[str, InspectReply | HostError], now: float) -> Status:
    """Combine the hosts' replies (of `remote/programs/inspect.py`) into a status."""
    replies = answers(results)
    records = {name: answer["record"] for name, answer in replies.items() if answer["record"]}
    newest = max(records.values(), key=_age, default=None)
    hosts = tuple(_host(name, result, now) for name, result in results.items())
    record: Record = newest or {}
    instances, routers = (
        tuple(_instance(server, replies, results, record) for server in servers)
        for servers in (record.get("instances", ()), record.get("routers", ()))
    )
    ray = next((answer["ray"] for answer in replies.values() if answer.get("ray")), None)
    return Status(
        deployment=deployment,
        state=_overall(hosts, instances + routers, newest, ray),
        run_id=record.get("run_id"),
        digest=record.get("digest"),
        head=record.get("head"),
        operator=record.get("operator"),
        started_at=record.get("started_at"),
        ray=ray,
        hosts=hosts,
        instances=instances,
        routers=routers,
    )


def _age(record: Record) -> tuple[bool, float]:
    """Return a key that sorts records by age; as hosts' clocks may be wrong, stopped ones count as older."""
    return not record.get("stopped_at"), record.get("started_at", 0)


def _host(name: str, result: InspectReply | HostError, now: float) -> HostStatus:
    if isinstance(result, HostError):
        return HostStatus(name, "UNKNOWN", problem=result.problem)
    record = result["record"]
    if record is None:
        return HostStatus(name, "running" if result["live"] else "absent", processes=result["live"])
    stopped = bool(record.get("stopped_at"))
    state: HostState = "running" if result["live"] else "stopped" if stopped else "dead"
    gone = [process["role"] for process in result["processes"] if process["role"] == "engine" and not process["alive"]]
    problem = f"{counted(len(gone), 'engine process')} gone" if gone else ""
    if not problem and (daemon := _lost_daemon(result)):
        problem = f"Ray's {daemon} is gone"
    finished = any(server.get("finished") for server in result["instances"].values())
    return HostStatus(
        host=name,
        state=state,
        roles=tuple(dict.fromkeys(record.get("roles", ()))),
        processes=result["live"],
        gpus=tuple(record.get("gpus", ())),
        uptime=max(0.0, now - record["started_at"]) if state == "running" and "started_at" in record else None,
        versions=record.get("versions"),
        problem="" if stopped or finished else problem,
    )


def _instance(
    instance: RecordedServer,
    replies: Mapping[str, InspectReply],
    results: Mapping[str, InspectReply | HostError],
    record: Record,
) -> InstanceStatus:
    driver = instance["driver"]
    state, problem = server_state(instance, replies.get(driver))
    server = _server(instance, replies.get(driver))
    metrics: Mapping[str, float] | None = server.get("metrics") if server else None
    restarts: InspectedRestarts = (server and server.get("restarts")) or {}
    if state == "ready":
        problem = problem or _cache_problem(metrics or {})
        hosts = [name for name in instance["hosts"] if name in replies]
        if gone := [f"Ray's {lost} is gone on {name}" for name in hosts if (lost := _lost_daemon(replies[name]))]:
            state, problem = "unwell", "; ".join(gone)
    elif state == "unwell" and (missing := _missing_ranks(instance, replies, record)):
        problem = f"{missing}; {problem}"
    away = [name for name in instance["hosts"] if isinstance(results.get(name), HostError)]
    if away and driver not in away:
        problem = problem or f"{', '.join(away)} cannot be reached"
    return InstanceStatus(
        name=instance["name"],
        model=instance["model"],
        replica=instance.get("replica"),
        state=state,
        driver=driver,
        hosts=tuple(instance["hosts"]),
        gpus={name: tuple(indexes) for name, indexes in instance["gpus"].items()},
        endpoint=_endpoint(instance, replies.get(driver)),
        served_name=instance["served_name"],
        problem=problem,
        metrics=metrics,
        restarts=restarts.get("restarts"),
        last_restart=restarts.get("last_restart"),
    )


def _cache_problem(metrics: Mapping[str, float]) -> str:
    """Return the problem of an engine with a full KV cache: it delays requests, and preempts others."""
    used, waiting = metrics.get("kv_cache", 0.0), metrics.get("waiting", 0.0)
    if used < FULL or not waiting:
        return ""
    return f"its KV cache is full ({used:.0%}), {counted(round(waiting), 'request')} waiting"


def _lost_daemon(answer: InspectReply) -> str:
    """Return the Ray daemon that is missing on a node of ours while other processes still run; "" for none."""
    record = answer["record"] or {}
    roles = set(record.get("roles", ()))
    if record.get("stopped_at") or not answer["live"] or "ranks" not in answer:
        return ""
    needed = ["gcs_server"] if "ray-head" in roles else []
    needed += ["raylet"] if roles & {"ray-head", "ray-worker"} else []
    return next((name for name in needed if not answer["ranks"].get(name)), "")


def _missing_ranks(instance: RecordedServer, replies: Mapping[str, InspectReply], record: Record) -> str:
    """Describe the hosts of a multi-host instance that have fewer of its ranks than GPUs.

    Ranks are recognized by their names. Returns "" where none is seen at all; leaves out hosts shared by instances.
    """
    shared = {
        name for other in record.get("instances", ()) if other["name"] != instance["name"] for name in other["hosts"]
    }
    hosts = [name for name in instance["hosts"] if name in replies and name not in shared]
    ranks = {name: replies[name].get("ranks", {}).get("rank", 0) for name in hosts}
    if len(instance["hosts"]) < 2 or not any(ranks.values()):
        return ""
    wanted = {name: len(instance["gpus"].get(name, ())) for name in hosts}
    return ", ".join(
        f"{name} has {ranks[name]} of {wanted[name]} ranks" for name in hosts if ranks[name] < wanted[name]
    )


def _endpoint(instance: RecordedServer, answer: InspectReply | None) -> str:
    """Return a server's endpoint; a program may answer on another host than its driver's, which its reply names."""
    server = _server(instance, answer)
    at = server.get("at") if server else None
    return str(instance.get("addresses", {}).get(at or "", instance["endpoint"]))


def _server(instance: RecordedServer, answer: InspectReply | None) -> InspectedServer | None:
    return answer.get("instances", {}).get(instance["name"]) if answer else None


def _overall(
    hosts: tuple[HostStatus, ...],
    instances: tuple[InstanceStatus, ...],
    record: Record | None,
    ray: RayNodesReply | None,
) -> str:
    host_states, states = {host.state for host in hosts}, {server.state for server in instances}
    if states & {"dead", "gave up"} or (instances and "dead" in host_states and states != {"stopped"}):
        return "unwell" if "ready" in states else "dead"
    if "UNKNOWN" in host_states | states:
        return "UNKNOWN"
    if record is None:
        return "absent" if host_states == {"absent"} else "leftovers"
    if states == {"ready"}:
        return "unwell" if ray and ray.get("missing") else "ready"
    if states == {"finished"} and "running" in host_states:
        return "finished"
    if host_states <= {"stopped", "absent"}:
        return "stopped"
    return (
        "unwell"
        if "unwell" in states
        else "restarting"
        if "restarting" in states
        else "starting"
        if "starting" in states
        else "leftovers"
    )
