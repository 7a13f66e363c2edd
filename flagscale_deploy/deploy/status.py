"""What of a deployment is really there: read from every host's record and processes, believed only when it answers."""

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
from flagscale_deploy.transport.fleet import Fleet, answers

SCHEMA = 1
ASK_SECONDS = 60.0
FULL = 0.99
"""The part of a KV cache above which it counts as full."""

HostState = Literal["running", "stopped", "absent", "dead", "UNKNOWN"]


@dataclass(frozen=True)
class HostStatus:
    """A host as it is: `processes` counts those of the deployment there; UNKNOWN: it could not be asked."""

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
    """An instance or router as it is: ready means that it answered a one-token completion just now.

    A program of the user's own is ready when its port is served (`remote/engine/program.py`), else while it lives;
    it is finished when it has ended with status 0.
    """

    name: str
    model: str
    replica: int | None
    """None: it is the router of the model."""
    state: InstanceState
    driver: str
    hosts: tuple[str, ...]
    gpus: Mapping[str, tuple[int, ...]]
    endpoint: str
    served_name: str
    problem: str = ""
    metrics: Mapping[str, float] | None = None
    """Of an engine that answers: what `remote/engine/metrics.py` finds; `kv_cache` is the part that is used, 0 to 1."""
    restarts: int | None = None
    """How often its supervisor has started it again; None where it has none."""
    last_restart: float | None = None
    """When that was last (Unix time)."""


@dataclass(frozen=True)
class Status:
    """A deployment as it is. `ray` is what its head counts, or None."""

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
    """Why it is not well, as far as logs say."""

    @property
    def well(self) -> bool:
        """Whether nothing of it is dead or unwell, as far as is known."""
        states = {self.state, *(each.state for each in (*self.instances, *self.routers))}
        return not states & {"dead", "unwell", "restarting", "gave up"}

    @property
    def entrances(self) -> tuple[InstanceStatus, ...]:
        """What clients talk to: a model's router, else its instances."""
        return entrances(self.instances, self.routers)

    @property
    def live_processes(self) -> int:
        return sum(host.processes for host in self.hosts)

    @property
    def exit_code(self) -> int:
        """0 when ready, finished or stopped, 3 when something is UNKNOWN, 1 otherwise."""
        return {"ready": 0, "finished": 0, "stopped": 0, "absent": 0, "UNKNOWN": 3}.get(self.state, 1)

    def json(self) -> dict[str, object]:
        """`status --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def look(fleet: Fleet, deployment: str, *, ask: bool = True, now: float | None = None) -> Status:
    """Look at a deployment on all hosts. `ask` also asks every server for a token, and Ray for its nodes."""
    results = fleet.call(
        INSPECT, lambda host: {"deployment": deployment, "host": host.name, "ask": ask}, timeout=ASK_SECONDS
    )
    return summarize(deployment, results, time.time() if now is None else now)


def summarize(deployment: str, results: Mapping[str, InspectReply | HostError], now: float) -> Status:
    """The status that hosts' answers (of `remote/programs/inspect.py`) amount to."""
    found = answers(results)
    records = {name: answer["record"] for name, answer in found.items() if answer["record"]}
    newest = max(records.values(), key=_age, default=None)
    hosts = tuple(_host(name, result, now) for name, result in results.items())
    record: Record = newest or {}
    instances, routers = (
        tuple(_instance(server, found, results, record) for server in servers)
        for servers in (record.get("instances", ()), record.get("routers", ()))
    )
    ray = next((answer["ray"] for answer in found.values() if answer.get("ray")), None)
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
    """Orders records by their time; hosts' clocks may be wrong, so what was stopped is older than what was not."""
    return not record.get("stopped_at"), record.get("started_at", 0)


def _host(name: str, result: InspectReply | HostError, now: float) -> HostStatus:
    if isinstance(result, HostError):
        return HostStatus(name, "UNKNOWN", problem=result.problem)
    record = result["record"]
    if record is None:
        return HostStatus(name, "running" if result["live"] else "absent", processes=result["live"])
    stopped = bool(record.get("stopped_at"))
    state: HostState = "running" if result["live"] else "stopped" if stopped else "dead"
    gone = [each["role"] for each in result["processes"] if each["role"] == "engine" and not each["alive"]]
    problem = f"{len(gone)} engine processes are gone" if gone else ""
    if not problem and (daemon := _lost_daemon(result)):
        problem = f"Ray's {daemon} is gone"
    finished = any(said.get("finished") for said in result["instances"].values())
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
    found: Mapping[str, InspectReply],
    results: Mapping[str, InspectReply | HostError],
    record: Record,
) -> InstanceStatus:
    driver = instance["driver"]
    state, problem = server_state(instance, found.get(driver))
    server = _server(instance, found.get(driver))
    metrics: Mapping[str, float] | None = server.get("metrics") if server else None
    restarts: InspectedRestarts = (server and server.get("restarts")) or {}
    if state == "ready":
        problem = problem or _pressed(metrics or {})
        hosts = [name for name in instance["hosts"] if name in found]
        if gone := [f"Ray's {lost} is gone on {name}" for name in hosts if (lost := _lost_daemon(found[name]))]:
            state, problem = "unwell", "; ".join(gone)
    elif state == "unwell" and (lacking := _lacking(instance, found, record)):
        problem = f"{lacking}; {problem}"
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
        endpoint=_endpoint(instance, found.get(driver)),
        served_name=instance["served_name"],
        problem=problem,
        metrics=metrics,
        restarts=restarts.get("restarts"),
        last_restart=restarts.get("last_restart"),
    )


def _pressed(metrics: Mapping[str, float]) -> str:
    """An engine whose KV cache holds no more lets requests wait, and throws others out to begin them anew."""
    used, waiting = metrics.get("kv_cache", 0.0), metrics.get("waiting", 0.0)
    return f"its KV cache is full ({used:.0%}), and {waiting:.0f} requests wait" if used >= FULL and waiting else ""


def _lost_daemon(answer: InspectReply) -> str:
    """The daemon that a Ray node of ours runs without: the record has the node, other processes live still."""
    record = answer["record"] or {}
    roles = set(record.get("roles", ()))
    if record.get("stopped_at") or not answer["live"] or "ranks" not in answer:
        return ""
    needed = ["gcs_server"] if "ray-head" in roles else []
    needed += ["raylet"] if roles & {"ray-head", "ray-worker"} else []
    return next((name for name in needed if not answer["ranks"].get(name)), "")


def _lacking(instance: RecordedServer, found: Mapping[str, InspectReply], record: Record) -> str:
    """The hosts of an instance over several that have fewer of its ranks than GPUs, in words.

    Ranks are known by their names: where none is seen at all this says nothing, and where other instances share a host.
    """
    shared = {
        name for each in record.get("instances", ()) if each["name"] != instance["name"] for name in each["hosts"]
    }
    hosts = [name for name in instance["hosts"] if name in found and name not in shared]
    ranks = {name: found[name].get("ranks", {}).get("rank", 0) for name in hosts}
    if len(instance["hosts"]) < 2 or not any(ranks.values()):
        return ""
    wanted = {name: len(instance["gpus"].get(name, ())) for name in hosts}
    return ", ".join(
        f"{name} has {ranks[name]} of {wanted[name]} ranks" for name in hosts if ranks[name] < wanted[name]
    )


def _endpoint(instance: RecordedServer, answer: InspectReply | None) -> str:
    """A program may answer on another host than its driver's; where it does, its driver's host has found out."""
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
    host_states, states = {host.state for host in hosts}, {each.state for each in instances}
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
