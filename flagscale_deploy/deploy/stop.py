"""Stop deployments, remove what they left, and report what could not be verified."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from flagscale_deploy.errors import ConnectError, HostError, NoReplyError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.stop import (
    CLEANUP,
    STOP,
    CleanupReply,
    KeptPath,
    PortLeft,
    RunFailure,
    StopArguments,
    StopDone,
    StopFound,
    StopKilled,
    StopStage,
    StopWaiting,
    Survivor,
)
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import MALFORMED, Fleet
from flagscale_deploy.transport.remote_program import Program

RAY_GRACE_SECONDS = 5.0
GATE_SECONDS = 20.0
"""How long beyond the grace hosts wait for each other's engines: those have had SIGKILL by then."""
SLACK_SECONDS = 120.0
"""How long stopping may take beyond its graces: SIGKILL waits for a GPU driver, and after_stop has a minute."""

State = Literal["stopped", "nothing", "survivors", "failed", "UNKNOWN"]


@dataclass
class _Totals:
    """What earlier programs on a host, whose connection was lost, have ended."""

    ended: int = 0
    seconds: float = 0.0
    segments: int = 0

    def add(self, message: StopWaiting) -> None:
        self.ended += message.get("ended", 0)
        self.seconds += message.get("seconds", 0.0)
        self.segments += message.get("segments", 0)


@dataclass(frozen=True)
class HostStop:
    """The result on a host. `ended` counts processes, `segments` what was removed from /dev/shm.

    UNKNOWN: the host could not be reached.
    """

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
    """The result on every host."""

    hosts: tuple[HostStop, ...]
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept: Mapping[str, tuple[KeptPath, ...]] = field(default_factory=dict)
    """What `cleanup` could not remove, or was not ours to remove, with the reason."""

    @property
    def ended(self) -> int:
        """Return how many processes were ended."""
        return sum(host.ended for host in self.hosts)

    @property
    def found_nothing(self) -> bool:
        """Return whether every host replied that nothing ran there, and nothing was removed."""
        return {host.state for host in self.hosts} == {"nothing"} and not any(self.removed.values())

    @property
    def exit_code(self) -> int:
        """Return 1 when something survived or failed, 3 when a host is UNKNOWN, 0 when all is verified gone."""
        states = {host.state for host in self.hosts}
        return 1 if states & {"survivors", "failed"} or any(self.kept.values()) else 3 if "UNKNOWN" in states else 0


def stop_deployment(
    fleet: Fleet,
    deployment: str,
    grace: float,
    say: Sink,
    run_id: str | None = None,
    failure: RunFailure | None = None,
    hosts: Iterable[str] | None = None,
) -> StopReport:
    """Stop a deployment on all hosts (or those named), engines before Ray and the rest, and verify that it is gone.

    With `run_id`, only that run of it; with `failure`, its records say why it failed. `grace` is the time in seconds
    between SIGTERM and SIGKILL of an engine. Nothing else on the hosts is touched.
    """
    names = tuple(fleet.hosts if hosts is None else hosts)
    stopping = _Stopping(fleet, names, deployment, grace, say, run_id, failure)
    ended = fleet.gather({name: partial(stopping.stop, fleet.hosts[name]) for name in names}, together=True)
    report = StopReport(tuple(_host_stop(name, ended[name]) for name in names))
    for host in report.hosts:
        state: Literal["done", "failed"] = "done" if host.state in ("stopped", "nothing") else "failed"
        say(Event("stop", state, host.host, describe(host), elapsed=host.seconds))
    return report


def remove_leftovers(
    fleet: Fleet, deployment: str, hosts: Iterable[str], say: Sink
) -> dict[str, CleanupReply | HostError]:
    """Remove a stopped deployment's files from hosts, and return each host's reply."""
    results = fleet.call(CLEANUP, lambda host: {"deployment": deployment, "host": host.name}, timeout=120, hosts=hosts)
    for name, result in results.items():
        if isinstance(result, HostError):
            say(Event("cleanup", "failed", name, result.problem))
        else:
            kept = "".join(f"; kept {path['path']}: {path['why']}" for path in result["kept"])
            text = f"removed {counted(len(result['removed']), 'path')}{kept}"
            say(Event("cleanup", "failed" if kept else "done", name, text))
    return results


def describe(host: HostStop) -> str:
    """Describe the result on a host."""
    if host.state == "survivors":
        survivors = "; ".join(
            f"pid {process['pid']} {process['command']}: {process['why']}" for process in host.survivors
        )
        return f"{counted(len(host.survivors), 'process')} survived: {survivors}"
    if host.state in ("failed", "UNKNOWN"):
        return f"{host.state}: {host.problem}"
    ports = "".join(f"; port {port['port']} is held by {port['command']}" for port in host.ports_left)
    memory = f"; {counted(host.segments, 'shared-memory segment')} removed" if host.segments else ""
    ended = f"{counted(host.ended, 'process')} ended, none left" if host.ended else "nothing was running"
    return ended + memory + ports


class _Gate:
    """A barrier between hosts: it opens when all have arrived or cannot arrive."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._missing, self._lock, self.open = set(hosts), threading.Lock(), threading.Event()

    def arrive(self, host: str) -> None:
        """Record that nothing needs to wait for this host any more."""
        with self._lock:
            self._missing.discard(host)
            if not self._missing:
                self.open.set()


@dataclass
class _Stopping:
    """Stops all hosts, each in its own thread."""

    fleet: Fleet
    hosts: Sequence[str]
    deployment: str
    grace: float
    say: Sink
    run_id: str | None
    failure: RunFailure | None

    def __post_init__(self) -> None:
        self._gate = _Gate(self.hosts)
        self._patience = Deadline(self.grace + GATE_SECONDS)
        self._before = {name: _Totals() for name in self.hosts}

    def stop(self, host: Host) -> StopDone:
        """Run the program on a host and return its last message.

        After a lost connection it is run again, which is safe at any time. Where the engines could not be ended, the
        rest is still ended.
        """
        try:
            try:
                done = self._stop_on(host, waiting=True)
            except ConnectError:
                done = self._stop_on(host, waiting=True)
        except (HostError, ValueError, *MALFORMED):
            self._gate.arrive(host.name)
            self.fleet.wait_for(self._gate.open, self._patience)
            done = self._stop_on(host, waiting=False)
        finally:
            self._gate.arrive(host.name)
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
        if self.failure is not None:
            args["failure"] = self.failure
        engines_ended: StopWaiting | None = None
        try:
            with Program(
                connection, STOP, args, timeout=limit, cancelled=self.fleet.cancelled, bounded=False
            ) as program:
                for message in program.messages():
                    if message["event"] == "waiting":
                        if engines_ended is not None:
                            continue  # a host that waits again and again would put its deadline off without end
                        engines_ended = message
                        self._gate.arrive(host.name)
                        self.fleet.wait_for(self._gate.open, self._patience)
                        self.fleet.guard()
                        program.allow(limit)
                        program.send({"go": "on"})
                    elif message["event"] == "done":
                        return message
                    else:
                        self._tell(host.name, message)
            raise NoReplyError(host.name, "the program that stops the deployment ended without a reply")
        except HostError:  # the next program does not count what has ended already
            if engines_ended is not None:
                self._before[host.name].add(engines_ended)
            raise

    def _tell(self, host: str, message: StopFound | StopStage | StopKilled) -> None:
        if message["event"] == "stage":
            self.say(
                Event(
                    "stop",
                    "progress",
                    host,
                    f"{message['stage']}: SIGTERM to {counted(message['signalled'], 'process')}",
                )
            )
        elif message["event"] == "killed":
            self.say(
                Event("stop", "progress", host, f"SIGKILL to {counted(message['count'], 'process')} that did not end")
            )


def _host_stop(name: str, done: StopDone | HostError) -> HostStop:
    if isinstance(done, HostError):
        state: State = "UNKNOWN" if isinstance(done, ConnectError) else "failed"
        return HostStop(name, state, problem=done.problem)
    ended, unclosed = done["ended"], done.get("unclosed", "")
    state = "survivors" if done["survivors"] else "failed" if unclosed else "stopped" if ended else "nothing"
    return HostStop(
        host=name,
        state=state,
        problem=unclosed
        and f"{counted(ended, 'process')} ended, none left, but secrets or record could not be removed: {unclosed}",
        ended=ended,
        survivors=tuple(done["survivors"]),
        ports_left=tuple(done["ports_left"]),
        seconds=done["seconds"],
        segments=done["segments"],
    )
