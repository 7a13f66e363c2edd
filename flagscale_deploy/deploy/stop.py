"""Ends deployments and removes what they left; says what it could not verify."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from flagscale_deploy.errors import ConnectError, HostError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.stop import (
    CLEANUP,
    STOP,
    CleanupReply,
    KeptPath,
    PortLeft,
    StopArguments,
    StopDone,
    StopFound,
    StopKilled,
    StopStage,
    StopWaiting,
    Survivor,
)
from flagscale_deploy.transport.fleet import MALFORMED, Fleet
from flagscale_deploy.transport.remote_program import Program

RAY_GRACE_SECONDS = 5.0
SLACK_SECONDS = 120.0
"""What stopping may take beyond its graces: SIGKILL that waits for a GPU driver, and after_stop's own minute."""

State = Literal["stopped", "nothing", "survivors", "failed", "UNKNOWN"]


@dataclass
class _Counted:
    """What each program counts by itself."""

    ended: int = 0
    seconds: float = 0.0
    segments: int = 0

    def add(self, counted: StopWaiting) -> None:
        self.ended += counted.get("ended", 0)
        self.seconds += counted.get("seconds", 0.0)
        self.segments += counted.get("segments", 0)


@dataclass(frozen=True)
class HostStop:
    """How a host was left. `ended` counts processes, `segments` what they left in /dev/shm and was removed; UNKNOWN: it
    could not be reached, so nothing is known of it."""

    host: str
    state: State
    ended: int = 0
    survivors: tuple[Survivor, ...] = ()
    ports_left: tuple[PortLeft, ...] = ()
    problem: str = ""
    seconds: float = 0.0
    segments: int = 0


@dataclass(frozen=True)
class StopReport:
    """Every host's end."""

    hosts: tuple[HostStop, ...]
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept: Mapping[str, tuple[KeptPath, ...]] = field(default_factory=dict)
    """What `cleanup` could not remove, or was not ours to remove."""

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
    stopping = _Stopping(fleet, deployment, grace, say, run_id)
    ended = fleet.gather({host.name: partial(stopping.stop, host) for host in fleet.hosts.values()}, together=True)
    report = StopReport(tuple(_host_stop(name, ended[name]) for name in fleet.hosts))
    for host in report.hosts:
        state: Literal["done", "failed"] = "done" if host.state in ("stopped", "nothing") else "failed"
        say(Event("stop", state, host.host, describe(host), elapsed=host.seconds))
    return report


def remove_leftovers(
    fleet: Fleet, deployment: str, hosts: Iterable[str], say: Sink
) -> dict[str, CleanupReply | HostError]:
    """Remove a stopped deployment's files from hosts."""
    results = fleet.call(CLEANUP, lambda host: {"deployment": deployment, "host": host.name}, timeout=120, hosts=hosts)
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


class _Gate:
    """Where hosts wait for each other: it opens when all have come, or can't."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._missing, self._lock, self.open = set(hosts), threading.Lock(), threading.Event()

    def come(self, host: str) -> None:
        """Nobody needs to wait for this one any more."""
        with self._lock:
            self._missing.discard(host)
            if not self._missing:
                self.open.set()


@dataclass
class _Stopping:
    """Stops hosts, each in a thread of its own."""

    fleet: Fleet
    deployment: str
    grace: float
    say: Sink
    run_id: str | None

    def __post_init__(self) -> None:
        self._gate = _Gate(self.fleet.hosts)
        self._before = {name: _Counted() for name in self.fleet.hosts}

    def stop(self, host: Host) -> StopDone:
        """What the program said last. A connection that breaks is made again; whatever became of a host's engines, the
        rest is ended there, too. The program may be run again any time."""
        try:
            try:
                done = self._stop_on(host, waiting=True)
            except ConnectError:
                done = self._stop_on(host, waiting=True)
        except (HostError, ValueError, *MALFORMED):
            self._gate.come(host.name)
            self.fleet.wait_for(self._gate.open)
            done = self._stop_on(host, waiting=False)
        finally:
            self._gate.come(host.name)
        before = self._before[host.name]
        return {
            **done,
            "ended": done["ended"] + before.ended,
            "seconds": done["seconds"] + before.seconds,
            "segments": done["segments"] + before.segments,
        }

    def _stop_on(self, host: Host, *, waiting: bool) -> StopDone:
        connection = self.fleet.connection(host.name)
        limit = self.grace + RAY_GRACE_SECONDS + SLACK_SECONDS
        args: StopArguments = {
            "deployment": self.deployment,
            "host": host.name,
            "run_id": self.run_id,
            "grace": self.grace,
            "ray_grace": RAY_GRACE_SECONDS,
            "wait": 2 * limit if waiting else None,
        }
        counted: StopWaiting | None = None
        try:
            with Program(
                connection, STOP, args, timeout=limit, cancelled=self.fleet.cancelled, bounded=False
            ) as program:
                for message in program.messages():
                    if message["event"] == "waiting":
                        counted = message
                        self._gate.come(host.name)
                        self.fleet.wait_for(self._gate.open)
                        self.fleet.guard()
                        program.allow(limit)
                        program.send({"go": "on"})
                    elif message["event"] == "done":
                        return message
                    else:
                        self._tell(host.name, message)
            raise RemoteError(host.name, "the program that stops ended without an answer")
        except HostError:  # the next one does not count what has ended already
            if counted is not None:
                self._before[host.name].add(counted)
            raise

    def _tell(self, host: str, message: StopFound | StopStage | StopKilled) -> None:
        if message["event"] == "stage":
            self.say(
                Event("stop", "progress", host, f"{message['stage']}: SIGTERM to {message['signalled']} processes")
            )
        elif message["event"] == "killed":
            self.say(Event("stop", "progress", host, f"SIGKILL to {message['count']} that did not end"))


def _host_stop(name: str, done: StopDone | HostError) -> HostStop:
    if isinstance(done, HostError):
        state: State = "UNKNOWN" if isinstance(done, ConnectError) else "failed"
        return HostStop(name, state, problem=done.problem)
    ended, unclosed = done["ended"], done.get("unclosed", "")
    state = "survivors" if done["survivors"] else "failed" if unclosed else "stopped" if ended else "nothing"
    return HostStop(
        host=name,
        state=state,
        problem=unclosed and f"{ended} processes ended, none left, but its secrets or record stay: {unclosed}",
        ended=ended,
        survivors=tuple(done["survivors"]),
        ports_left=tuple(done["ports_left"]),
        seconds=done["seconds"],
        segments=done["segments"],
    )
