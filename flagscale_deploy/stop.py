"""Ends deployments and removes what they left; says what it could not verify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flagscale_deploy.deadline import Deadline
from flagscale_deploy.errors import ConnectError, HostError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.program import Program

ENGINES, RAY = "engines", "ray"
RAY_GRACE_SECONDS = 5.0
SLACK_SECONDS = 120.0
"""What stopping may take beyond its graces: SIGKILL that waits for a GPU driver, and after_stop's own minute."""

State = Literal["stopped", "nothing", "survivors", "failed", "UNKNOWN"]


@dataclass(frozen=True)
class HostStop:
    """How a host was left. `ended` counts processes, `segments` what they left in /dev/shm and was removed; UNKNOWN: it
    could not be reached, so nothing is known of it."""

    host: str
    state: State
    ended: int = 0
    survivors: tuple[Mapping[str, Any], ...] = ()
    ports_left: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""
    seconds: float = 0.0
    segments: int = 0


@dataclass(frozen=True)
class StopReport:
    """Every host's end."""

    hosts: tuple[HostStop, ...]
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)
    """What `cleanup` could not remove, or was not ours to remove: {path, why}."""

    @property
    def ended(self) -> int:
        return sum(host.ended for host in self.hosts)

    @property
    def exit_code(self) -> int:
        """0 when everything is verified gone, 3 when a host is UNKNOWN, 1 when something survived or failed."""
        states = {host.state for host in self.hosts}
        return 1 if states & {"survivors", "failed"} or any(self.kept.values()) else 3 if "UNKNOWN" in states else 0


def stop_deployment(fleet: Fleet, deployment: str, grace: float, say: Sink, run_id: str | None = None) -> StopReport:
    """End a deployment on all hosts: every engine everywhere first, then Ray and the rest; verified by a fresh look.

    With `run_id`, that run of it and no other. `grace` is the time in seconds between SIGTERM and SIGKILL of an engine.
    Nothing else on the hosts is touched.
    """
    watch = Deadline(grace + RAY_GRACE_SECONDS + SLACK_SECONDS)
    first = fleet.map(_stopping(fleet, deployment, run_id, grace, ENGINES, say, watch))
    second = fleet.map(_stopping(fleet, deployment, run_id, grace, RAY, say, watch))
    report = StopReport(tuple(_host_stop(name, first[name], second[name]) for name in fleet.hosts))
    for host in report.hosts:
        state: Literal["done", "failed"] = "done" if host.state in ("stopped", "nothing") else "failed"
        say(Event("stop", state, host.host, describe(host), elapsed=host.seconds))
    return report


def remove_leftovers(
    fleet: Fleet, deployment: str, hosts: Iterable[str], say: Sink
) -> dict[str, HostError | dict[str, Any]]:
    """Remove a stopped deployment's files from hosts: {"removed": [path], "kept": [{path, why}]} for each."""
    results = fleet.call(
        "cleanup", lambda host: {"deployment": deployment, "host": host.name}, timeout=120, hosts=hosts
    )
    for name, result in results.items():
        if isinstance(result, HostError):
            say(Event("cleanup", "failed", name, result.problem))
        else:
            kept = "".join(f"; kept {each['path']}: {each['why']}" for each in result["kept"])
            said = f"removed {len(result['removed'])} paths{kept}"
            say(Event("cleanup", "failed" if kept else "done", name, said))
    return results


def describe(host: HostStop) -> str:
    """One host's end in words."""
    if host.state == "survivors":
        each = "; ".join(f"pid {one['pid']} {one['command']}: {one['why']}" for one in host.survivors)
        return f"{len(host.survivors)} processes survive: {each}"
    if host.state in ("failed", "UNKNOWN"):
        return f"{host.state}: {host.problem}"
    ports = "".join(f"; port {one['port']} is held by {one['command']}" for one in host.ports_left)
    memory = f"; {host.segments} segments of shared memory removed" if host.segments else ""
    return (f"{host.ended} processes ended, none left" if host.ended else "nothing was running") + memory + ports


def _stopping(
    fleet: Fleet, deployment: str, run_id: str | None, grace: float, stage: str, say: Sink, watch: Deadline
) -> Callable[[Host], dict[str, Any]]:
    def work(host: Host) -> dict[str, Any]:
        """A connection that breaks is made again, once: the program goes on without it, and may be run twice."""
        connection = fleet.connection(host.name)
        try:
            return stop_on(host, connection)
        except ConnectError:
            return stop_on(host, fleet.connection(host.name))

    def stop_on(host: Host, connection: Connection) -> dict[str, Any]:
        args = {
            "deployment": deployment,
            "host": host.name,
            "run_id": run_id,
            "grace": grace,
            "ray_grace": RAY_GRACE_SECONDS,
            "only": stage if stage == ENGINES else None,
        }
        with Program(
            connection, "stop", args, timeout=watch.seconds, cancelled=fleet.cancelled, bounded=False
        ) as program:
            for message in program.messages():
                if message["event"] == "stage":
                    said = f"{message['stage']}: SIGTERM to {message['signalled']} processes"
                    say(Event("stop", "progress", host.name, said))
                elif message["event"] == "killed":
                    say(Event("stop", "progress", host.name, f"SIGKILL to {message['count']} that did not end"))
                elif message["event"] == "done":
                    return message
        raise RemoteError(host.name, "the program that stops ended without an answer")

    return work


def _host_stop(name: str, engines: dict[str, Any] | HostError, ray: dict[str, Any] | HostError) -> HostStop:
    if isinstance(ray, HostError):
        state: State = "UNKNOWN" if isinstance(ray, ConnectError) else "failed"
        return HostStop(name, state, problem=ray.problem)
    before = engines if isinstance(engines, dict) else {"ended": 0, "seconds": 0.0, "segments": 0}
    ended = before["ended"] + ray["ended"]
    unclosed = ray.get("unclosed", "")
    state = "survivors" if ray["survivors"] else "failed" if unclosed else "stopped" if ended else "nothing"
    return HostStop(
        host=name,
        state=state,
        problem=unclosed and f"{ended} processes ended, none left, but its secrets or record stay: {unclosed}",
        ended=ended,
        survivors=tuple(ray["survivors"]),
        ports_left=tuple(ray["ports_left"]),
        seconds=before["seconds"] + ray["seconds"],
        segments=before["segments"] + ray["segments"],
    )
