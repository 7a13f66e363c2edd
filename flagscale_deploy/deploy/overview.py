"""Everything that runs on the hosts of an inventory: deployments, what other users serve, and who holds each GPU."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

from flagscale_deploy.deploy.serving import ALL_SECONDS, withdraw_unverified
from flagscale_deploy.deploy.status import ASK_SECONDS, SCHEMA, Status, summarize
from flagscale_deploy.errors import HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.gpu_use import is_full
from flagscale_deploy.remote.messages.history import HistoryEvent
from flagscale_deploy.remote.messages.probe import ProbedGpu
from flagscale_deploy.remote.messages.ps import PS, OthersDeployment, PsArguments, PsReply
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.status import InspectReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.paths import DEPLOYMENT_NAME
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet, answers

MOST, MOST_MODELS, LONGEST = 100, 20, 300
"""As many of a host's deployments and GPUs, models of one, and characters are shown (`remote/programs/ps.py`)."""
OWN_HOSTS = "give --name and its own hosts, or `cleanup` where it is over"
Results = dict[str, InspectReply | HostError]
ABSENT: InspectReply = {"record": None, "processes": [], "live": 0, "ranks": {}, "instances": {}, "ray": None}


@dataclass(frozen=True)
class Gpu:
    """A GPU of a host and who holds it: a deployment, processes of users, or nobody. Memory in MiB."""

    host: str
    index: int
    name: str
    memory_total_mib: int
    memory_used_mib: int
    utilization: int | None
    """Percent; None where the driver does not say."""
    deployment: str = ""
    """That holds it: by its processes there, else by its record."""
    user: str = ""
    """Of its processes, where they are not ours."""
    processes: tuple[str, ...] = ()
    """Those that belong to no deployment, or that nobody can look into: `4711 python train.py`."""

    @property
    def free(self) -> bool:
        """Return whether nobody holds it."""
        full = is_full(self.memory_used_mib, self.memory_total_mib)
        return not (self.deployment or self.user or self.processes or full)


@dataclass(frozen=True)
class Overview:
    """What runs on hosts. `last_events` has a deployment's newest event, by its name; `unknown` says why of hosts."""

    deployments: tuple[Status, ...]
    last_events: Mapping[str, HistoryEvent] = field(default_factory=dict)
    others: Mapping[str, tuple[OthersDeployment, ...]] = field(default_factory=dict)
    """What other users serve, by host."""
    gpus: tuple[Gpu, ...] = ()
    gpu_errors: Mapping[str, str] = field(default_factory=dict)
    """What nvidia-smi complained of, by host."""
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Return 3 when a host could not be asked, else the worst exit status of a deployment."""
        return 3 if self.unknown else max((status.exit_code for status in self.deployments), default=0)

    def statuses_json(self) -> dict[str, object]:
        """Return what `status --json` prints without a name."""
        shown = [status.json() for status in self.deployments]
        return {"schema": SCHEMA, "deployments": shown, "unknown": dict(self.unknown)}

    def json(self) -> dict[str, object]:
        """Return what `ps --json` prints."""
        return {
            "schema": SCHEMA,
            "deployments": [_deployment_json(status, self.last_events) for status in self.deployments],
            "others": {host: list(others) for host, others in self.others.items()},
            "gpus": [{**asdict(gpu), "free": gpu.free} for gpu in self.gpus],
            "gpu_errors": dict(self.gpu_errors),
            "unknown": dict(self.unknown),
        }


def replicas_ready(status: Status) -> tuple[int, int]:
    """Return how many instances of a deployment are ready, or have finished well, and how many there are."""
    return sum(server.state in ("ready", "finished") for server in status.instances), len(status.instances)


def last_change(status: Status, events: Mapping[str, HistoryEvent]) -> tuple[float, str] | None:
    """Return when something became of a deployment last, and what; None where that is not known."""
    event = events.get(status.deployment)
    if event is not None:
        return event["time"], f"{event['server']} {event['event']}".strip()
    changes = [(at, what) for at, what in ((status.started_at, "run"), (status.stopped_at, "stopped")) if at]
    return max(changes, default=None)  # by its record: an older version of this tool kept no history


def _deployment_json(status: Status, events: Mapping[str, HistoryEvent]) -> dict[str, object]:
    ready, wanted = replicas_ready(status)
    changed = last_change(status, events)
    return {
        "name": status.deployment,
        "models": list(status.models),
        "state": status.state,
        "ready": ready,
        "wanted": wanted,
        "endpoints": list(status.endpoints),
        "gpus": {host.host: list(host.gpus) for host in status.hosts if host.gpus},
        "owner": status.operator,
        "started_at": status.started_at,
        "last_change": {"at": changed[0], "what": changed[1]} if changed else None,
    }


def overview(fleet: Fleet, head: str, *, gpus: bool) -> Overview:
    """Look at all hosts at once, and request a token from every server. `gpus`: also ask for the GPUs.

    A deployment is what the host says that calls itself its head; where none does, `head` decides.
    """

    def arguments(host: Host) -> PsArguments:
        return {"host": host.name, "gpus": gpus}

    results = fleet.call(PS, arguments, timeout=ASK_SECONDS)
    replies = answers(results)
    unknown = {name: result.problem for name, result in results.items() if isinstance(result, HostError)}
    unknown |= {name: problem for name, reply in replies.items() if (problem := _left_out(reply))}
    deadline, now = Deadline(ALL_SECONDS), time.time()
    statuses, last_events, events = [], {}, _last_events(replies)
    for name, seen in sorted(_by_deployment(results).items()):
        own_head, note = _head(seen, head, unknown)
        whole = _whole(seen, results, own_head)
        if event := _last_event(events.get(name, {}), own_head, _record(seen, own_head)):
            last_events[name] = event
        withdraw_unverified(fleet, name, own_head, whole, deadline)
        status = summarize(name, own_head, whole, now)
        statuses.append(replace(status, state="UNKNOWN", trusted=False, note=note) if note else status)
    return Overview(
        tuple(statuses),
        last_events,
        {name: tuple(map(_cut, reply["others"][:MOST])) for name, reply in replies.items() if reply["others"]},
        tuple(_gpus(replies)),
        {name: error for name, reply in replies.items() if (error := reply["gpu_error"])},
        unknown,
    )


def _left_out(reply: PsReply) -> str:
    """Return what a host's reply does not have, "" for a whole one."""
    odd = sum(not DEPLOYMENT_NAME.fullmatch(own["deployment"]) for own in reply["deployments"][:MOST])
    if number := reply["left_out"] + odd + len(reply["deployments"][MOST:]):
        return f"{counted(number, 'deployment')} of its are not listed; give --name"
    return ""


def _cut(other: OthersDeployment) -> OthersDeployment:
    """Return what of another user's deployment is shown."""
    models = [model[:LONGEST] for model in other["models"][:MOST_MODELS]]
    user, name, endpoint = (text[:LONGEST] for text in (other["user"], other["deployment"], other["endpoint"]))
    return {**other, "user": user, "deployment": name, "endpoint": endpoint, "models": models}


def _by_deployment(results: Mapping[str, PsReply | HostError]) -> dict[str, dict[str, InspectReply]]:
    """Return what hosts have of each deployment, by the host's name there.

    None speaks for another host, also not for one that does not reply.
    """
    by_name: dict[str, dict[str, InspectReply]] = {}
    for host, reply in answers(results).items():
        for own in reply["deployments"][:MOST]:
            seen = by_name.setdefault(own["deployment"], {}) if DEPLOYMENT_NAME.fullmatch(own["deployment"]) else {}
            if own["host"] == host or (own["host"] not in results and own["host"] not in seen):
                seen[own["host"]] = own["seen"]
    return {name: seen for name, seen in by_name.items() if seen}


def _head(seen: Mapping[str, InspectReply], default: str, unasked: Collection[str]) -> tuple[str, str]:
    """Return the host that calls itself a deployment's head; with a note where several do, or others name another.

    One that says that it was stopped counts too: else any host would bring it back to life, at an endpoint of its own.
    """
    heads = [host for host in seen if _record(seen, host).get("head") == host]
    running = [host for host in heads if not _record(seen, host).get("stopped_at")]
    first = next(iter(running or heads), default)
    note = f"{', '.join(heads)} each say that they are its head; {OWN_HOSTS}" if heads[1:] else ""
    differing = [host for host in seen if heads and _names_another(seen[host], heads, unasked)]
    if differing:
        note = note or f"{first} says that it is its head, {', '.join(differing)} that another is; {OWN_HOSTS}"
    return first, note


def _names_another(reply: InspectReply, heads: Collection[str], unasked: Collection[str]) -> bool:
    """Return whether a host names another head, for what runs there or one that could not be asked."""
    record = reply["record"] or {}
    runs = reply["live"] and not record.get("stopped_at")
    return "head" in record and record["head"] not in heads and bool(runs or record["head"] in unasked)


def _record(seen: Mapping[str, InspectReply], host: str) -> Record:
    return (seen[host]["record"] if host in seen else None) or {}


def _whole(seen: Mapping[str, InspectReply], results: Mapping[str, PsReply | HostError], head: str) -> Results:
    """Return the replies of a deployment's hosts, also of those that could not be asked or have nothing of it."""
    whole: Results = {**seen}
    for host in _record(seen, head).get("hosts", ()):
        result = results.get(host)
        if host not in whole and result is not None:
            whole[host] = result if isinstance(result, HostError) else ABSENT
    return whole


def _last_events(replies: Mapping[str, PsReply]) -> dict[str, dict[str, HistoryEvent]]:
    """Return each host's own newest event of each deployment."""
    events: dict[str, dict[str, HistoryEvent]] = {}
    for host, reply in replies.items():
        for own in reply["deployments"][:MOST]:
            if own["last_event"] is not None and own["host"] == host:
                events.setdefault(own["deployment"], {})[host] = own["last_event"]
    return events


def _last_event(events: Mapping[str, HistoryEvent], head: str, record: Record) -> HistoryEvent | None:
    """Return the newest event: of the head, and of other hosts what became of servers that the head says run there."""
    there = {
        (server["driver"], server["name"]) for server in (*record.get("instances", ()), *record.get("routers", ()))
    }
    for server in record.get("instances", ()):
        there |= {(rank["host"], rank["name"]) for rank in (*server.get("ranks", ()), *server.get("spares", ()))}
    counted_ones = [event for host, event in events.items() if host == head or (host, event["server"]) in there]
    return max(counted_ones, key=lambda event: event["time"], default=None)


def _gpus(replies: Mapping[str, PsReply]) -> Iterator[Gpu]:
    """Yield the GPUs of all hosts with their holders."""
    for host, reply in replies.items():
        claims = dict(_claims(reply))
        for gpu in reply["gpus"][:MOST]:
            yield _held(host, gpu, reply["user"], claims.get(gpu["index"], ""))


def _claims(reply: PsReply) -> Iterator[tuple[int, str]]:
    """Yield the GPUs that deployments of ours have here, also where no process uses them yet."""
    for own in reply["deployments"][:MOST]:
        record = own["seen"]["record"] or {}
        if not record.get("stopped_at") and own["seen"]["live"]:
            yield from ((index, own["deployment"]) for index in record.get("gpus", ()))


def _held(host: str, gpu: ProbedGpu, we: str, claim: str) -> Gpu:
    """Return a GPU with its holder: what runs on it counts before what a record claims."""
    marked = [process for process in gpu["processes"] if process["run"]]
    rest = [process for process in gpu["processes"] if not process["run"]]
    users = dict.fromkeys(process["user"] for process in gpu["processes"] if process["user"] not in ("", we))
    names = dict.fromkeys(process["run"].partition("/")[0] for process in marked)
    return Gpu(
        host,
        gpu["index"],
        gpu["name"],
        gpu["memory_total_mib"],
        gpu["memory_used_mib"],
        gpu["utilization"],
        deployment=", ".join(names) or claim,
        user=", ".join(users),
        processes=() if claim and not users else tuple(f"{one['pid']} {one['command']}".strip() for one in rest),
    )
