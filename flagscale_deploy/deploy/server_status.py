"""The status of one server, from its record and the replies of its hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flagscale_deploy.deploy.moved_ranks import as_placed, moves
from flagscale_deploy.deploy.server_state import InstanceState, RankState, rank_state, server_state
from flagscale_deploy.errors import HostError
from flagscale_deploy.remote.messages.record import Record, RecordedRank, RecordedServer
from flagscale_deploy.remote.messages.status import InspectedRestarts, InspectedServer, InspectReply
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import answers

FULL = 0.99
"""Used part of a KV cache from which on it counts as full."""


@dataclass(frozen=True)
class RankStatus:
    """The state of a rank: a follower runs while its process does, one with an API is ready when it answers."""

    number: int
    role: str
    host: str
    gpus: tuple[int, ...]
    state: RankState
    problem: str = ""
    script: str = ""


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
    restart_reason: str = ""
    """How its last run ended, in words."""
    evidence: str = ""
    """The folder below `evidence/` on its host with what was seen when it hung last."""
    script: str = ""
    """The script that starts it; its log has the same name."""
    argv: tuple[str, ...] = ()
    """Its command line, without secrets."""
    ranks: tuple[RankStatus, ...] = ()
    """Its processes, the driver first; none in records of older versions."""
    spares: tuple[RankStatus, ...] = ()
    """The hosts that may carry a rank of another one that is lost."""


def server_status(
    instance: RecordedServer, results: Mapping[str, InspectReply | HostError], shared: Collection[str]
) -> InstanceStatus:
    """Return the status of a server of the record, from the replies of all hosts; `shared` have several instances."""
    replies, driver = answers(results), instance["driver"]
    state, problem = server_state(instance, replies.get(driver))
    server = _server(instance, replies.get(driver))
    metrics: Mapping[str, float] | None = server.get("metrics") if server else None
    restarts: InspectedRestarts = (server and server.get("restarts")) or {}
    planned, instance = instance, as_placed(instance, restarts.get("hosts"))
    missing = _missing(instance, replies, shared) if state in ("ready", "unwell", "dead") else {}
    ranks = tuple(_rank(instance, rank, results, missing) for rank in instance.get("ranks", ()))
    broken = [f"rank {rank.number} on {rank.host}: {rank.problem}" for rank in ranks[1:] if rank.problem]
    if state in ("ready", "starting", "unwell") and broken:
        state, problem = "unwell", "; ".join(filter(None, (*broken, problem)))
    elif state == "dead" and broken:
        problem = "; ".join((problem, *broken))
    elif state == "ready":
        problem = problem or _cache_problem(metrics or {}) or moves(planned, instance)
        if gone := _ray_losses(instance, replies):
            state, problem = "unwell", "; ".join(gone.values())
    elif state in ("restarting", "gave up"):  # its own host's Ray it names itself
        gone = _ray_losses(instance, replies)
        problem = "; ".join((problem, *(loss for name, loss in gone.items() if name != driver)))
    elif state == "unwell" and missing:
        problem = f"{', '.join(f'{name} has {count}' for name, count in missing.items())}; {problem}"
    away = [name for name in dict.fromkeys(instance["hosts"]) if isinstance(results.get(name), HostError)]
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
        restart_reason=restarts.get("last_exit", ""),
        evidence=restarts.get("evidence", ""),
        script=instance["script"],
        argv=tuple(instance.get("argv", ())),
        ranks=ranks,
        spares=tuple(_rank(instance, spare, results, {}) for spare in instance.get("spares", ())),
    )


def _rank(
    instance: RecordedServer,
    rank: RecordedRank,
    results: Mapping[str, InspectReply | HostError],
    missing: Mapping[str, str],
) -> RankStatus:
    state, problem = rank_state(instance, rank, results.get(rank["host"]))
    if state == "running" and rank["host"] in missing:
        state, problem = "unwell", f"has {missing[rank['host']]}"
    return RankStatus(rank["number"], rank["role"], rank["host"], tuple(rank["gpus"]), state, problem, rank["script"])


def _cache_problem(metrics: Mapping[str, float]) -> str:
    """Return the problem of an engine with a full KV cache: it delays requests, and preempts others."""
    used, waiting = metrics.get("kv_cache", 0.0), metrics.get("waiting", 0.0)
    if used < FULL or not waiting:
        return ""
    return f"its KV cache is full ({used:.0%}), {counted(round(waiting), 'request')} waiting"


def lost_daemon(reply: InspectReply) -> str:
    """Return the Ray daemon that is missing on a node of ours while other processes still run; "" for none."""
    record = reply["record"] or {}
    roles = set(record.get("roles", ()))
    gave_up = reply.get("ray_node", {}).get("state") == "gave up"
    if record.get("stopped_at") or not (reply["live"] or gave_up):
        return ""
    needed = ["gcs_server"] if "ray-head" in roles else []
    needed += ["raylet"] if roles & {"ray-head", "ray-worker"} else []
    return next((name for name in needed if not reply["ranks"].get(name)), "")


def ray_loss(reply: InspectReply, where: str = "") -> str:
    """Return which Ray daemon is missing on a node of ours, and whether it comes back; "" for none."""
    lost, node = lost_daemon(reply), reply.get("ray_node", {})
    if not lost:
        return ""
    if node.get("state") == "gave up":
        return f"Ray's {lost} is gone{where}: {node.get('why')}"
    if not node.get("supervised"):
        return f"Ray's {lost} is gone{where}"
    if node.get("state") == "restarting" and node.get("why"):
        return f"Ray{where} is restarting: it {node.get('why')}"
    number, most = node.get("in_a_row"), node.get("max")
    count = f" ({number} of {most})" if number else ""
    return f"Ray{where} is restarting{count}: it {node.get('last_exit')}"


def _ray_losses(instance: RecordedServer, replies: Mapping[str, InspectReply]) -> dict[str, str]:
    """Return by host of an instance which Ray daemon is missing there."""
    hosts = [name for name in dict.fromkeys(instance["hosts"]) if name in replies]
    return {name: loss for name in hosts if (loss := ray_loss(replies[name], f" on {name}"))}


def shared_hosts(record: Record) -> set[str]:
    """Return the hosts that several instances of a record are on."""
    instances = {instance["name"]: instance["hosts"] for instance in record.get("instances", ())}
    count = Counter(name for hosts in instances.values() for name in dict.fromkeys(hosts))
    return {name for name, number in count.items() if number > 1}


def _missing(instance: RecordedServer, replies: Mapping[str, InspectReply], shared: Collection[str]) -> dict[str, str]:
    """Describe, by host, what is left of the processes that compute, on hosts that have fewer of them than GPUs.

    They are recognized by their names: workers, or for data-parallel ranks without workers the engine cores. Returns
    nothing where none is seen at all; leaves out hosts that are `shared` by instances.
    """
    hosts = [name for name in dict.fromkeys(instance["hosts"]) if name in replies and name not in shared]
    if len(instance["hosts"]) < 2:
        return {}
    data_ranks = any(rank["data_rank"] is not None for rank in instance.get("ranks", ()))
    for part, title in (("rank", "rank"), ("engine-core", "engine core"))[: 1 + data_ranks]:
        counts = {name: replies[name].get("ranks", {}).get(part, 0) for name in hosts}
        if any(counts.values()):
            wanted = {name: len(instance["gpus"].get(name, ())) for name in hosts}
            return {name: f"{counts[name]} of {wanted[name]} {title}s" for name in hosts if counts[name] < wanted[name]}
    return {}


def _endpoint(instance: RecordedServer, reply: InspectReply | None) -> str:
    """Return a server's endpoint; a program may reply on another host than its driver's, which its reply names."""
    server = _server(instance, reply)
    at = server.get("at") if server else None
    return str(instance.get("addresses", {}).get(at or "", instance["endpoint"]))


def _server(instance: RecordedServer, reply: InspectReply | None) -> InspectedServer | None:
    return reply.get("instances", {}).get(instance["name"]) if reply else None
