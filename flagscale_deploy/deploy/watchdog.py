"""Watch every host of a run while engines start: ranks that die, loads that stall, GPUs that Ray lacks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from flagscale_deploy.deploy.placement_watch import PlacementWatch
from flagscale_deploy.deploy.stall import Stalls
from flagscale_deploy.diagnosis.find import diagnose, error_lines
from flagscale_deploy.errors import HostError, InterruptedByUser, NotReadyError, RemoteError, UnreachableError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.model import InstancePlan, Plan
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.stages import SERVE
from flagscale_deploy.remote.messages.program import NoOrder
from flagscale_deploy.remote.messages.run import (
    WATCH_RANKS,
    WatchRanksArguments,
    WatchRanksReply,
)
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.reconnect import Bounds, through_losses
from flagscale_deploy.transport.remote_program import Program, at_once

GRACE_SECONDS = 2.0
"""How long an engine gets to log the cause after one of its processes has died."""
LOST_SECONDS = 30.0
"""How long a host may be unreachable, after its connection was lost, before the run is given up."""
KEPT_LINES = 400
MOST_QUOTED = 8
MOST_LOST = 64
"""How many processes that ended together are named."""


class RankLostError(RemoteError):
    """A process that an engine needs has ended, on any host of the run."""

    exit_code = NotReadyError.exit_code


@dataclass(frozen=True)
class Loss:
    """A process of the run that ended before the run was ready."""

    host: str
    title: str
    pid: int
    oom: str = ""
    """Evidence of an OOM kill on the host, if any."""

    def __str__(self) -> str:
        return f"{self.host} lost {self.title} (process {self.pid})"


def kernel_log_remedy(host: str) -> str:
    """Return the remedy for a process that ended without a message."""
    return f"`journalctl -k` or `dmesg` on {host} shows whether the kernel killed it (out of memory, or a fault)"


def _because(loss: Loss) -> str:
    return f"; {loss.oom}" if loss.oom else ""


@dataclass
class _Heard:
    """What a host has sent so far: how many messages, and the processes of each part in the last one."""

    messages: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict)


class _EndOfWatch(threading.Event):
    """An event that is set, too, when the fleet is cancelled."""

    def __init__(self, cancelled: threading.Event) -> None:
        super().__init__()
        self._cancelled = cancelled

    def is_set(self) -> bool:
        return super().is_set() or self._cancelled.is_set()


class StartupWatchdog:
    """Watches all hosts of a run until `stop`. `tasks` report what they see, and raise RankLostError.

    A connection that is lost is made again, for LOST_SECONDS; then the host is lost, and UnreachableError is raised.
    A raylet, Ray's GCS, an engine core or a rank that ends is a failure; in a deployment with the user's own programs,
    which may end any process, only the first two are. A host that cannot be watched is noted, and is no failure.
    TooFewGpusError is raised where Ray will never have the GPUs that an engine asks for.
    """

    def __init__(self, plan: Plan, fleet: Fleet, stall: float, say: Sink) -> None:
        self._plan, self._fleet, self._say = plan, fleet, say
        self._over = _EndOfWatch(fleet.cancelled)
        self._placement = PlacementWatch(plan, fleet, self._over, say)
        self._lock = threading.Lock()
        self._programs: list[Program[WatchRanksReply, NoOrder]] = []
        self._stalls = Stalls(plan.instances, stall, say)
        self._kept: deque[tuple[str, str]] = deque(maxlen=KEPT_LINES)
        self.losses: list[Loss] = []

    @property
    def tasks(self) -> dict[str, Callable[[], None]]:
        """Return the watch tasks, by names that no instance has."""
        hosts = sorted({host for instance in self._plan.instances for host in instance.hosts} | {*self._ray_hosts})
        tasks: dict[str, Callable[[], None]] = {f"ranks of {host}": partial(self._watch, host) for host in hosts}
        if any(isinstance(instance, InstancePlan) and instance.executor == "ray" for instance in self._plan.instances):
            tasks["placement"] = self._placement.watch
        return tasks

    def add_output(self, name: str, host: str, lines: Iterable[str]) -> None:
        """Record log output of an instance on a host; resets its stall timer."""
        self._stalls.note_output(name)
        with self._lock:
            for line in lines:
                self._kept.append((host, line))
                self._placement.note_line(line)

    def mark_ready(self, name: str) -> None:
        """Record that an instance is ready: it may be silent from now on."""
        self._stalls.mark_ready(name)

    def stop(self) -> None:
        """End all watch tasks: every instance is ready."""
        self._over.set()
        with self._lock:
            programs = list(self._programs)
        at_once(program.end_input for program in programs)

    def lost_process(self, lines: Iterable[str]) -> str:
        """Return text about the lost process that explains an engine's end; "" where its log shows another cause."""
        diagnosis = diagnose([("", "", lines)])
        has_own_cause = diagnosis is not None and diagnosis.level not in ("consequence", "echo")
        return "" if has_own_cause or not self.losses else f", after {self.losses[0]}"

    @property
    def _ray_hosts(self) -> tuple[str, ...]:
        return tuple(node.host for node in self._plan.ray.nodes)

    def _watch(self, host: str) -> None:
        heard = _Heard()

        def tell(_host: str, text: str) -> None:
            self._say(Event(SERVE, "note", host, text))

        try:
            through_losses(
                self._fleet,
                host,
                partial(self._watch_through, host, heard),
                heard=lambda: heard.messages,
                patience=LOST_SECONDS,
                tell=tell,
                bounds=Bounds(over=self._over.is_set),
            )
        except InterruptedByUser:
            if self._fleet.cancelled.is_set():
                raise
        except (RankLostError, UnreachableError):
            raise
        except HostError as error:
            self._say(Event(SERVE, "note", host, f"its processes cannot be watched: {error.problem}"))

    def _watch_through(self, host: str, heard: _Heard, connection: Connection) -> None:
        """Watch a host on one connection, the first one or another."""
        plan, steps = self._plan, [step for stage in self._plan.stages for step in stage.steps]
        args: WatchRanksArguments = {"deployment": plan.deployment, "host": host, "run_id": plan.run_id}
        if not any(step.role == "ray-head" for step in steps):  # else all of the deployment starts
            args["scripts"] = [step.script for step in steps if step.host == host]
        before = heard.ranks
        with Program(
            connection, WATCH_RANKS, args, timeout=10 * 86400.0, cancelled=self._over, bounded=False
        ) as program:
            with self._lock:
                self._programs.append(program)
            for message in program.messages():
                heard.messages += 1
                if "ranks" in message:
                    self._compare(host, before, message["ranks"])
                    before, heard.ranks = {}, message["ranks"]
                self._read(host, message)
                if self._over.is_set():
                    return

    def _compare(self, host: str, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        """Raise RankLostError where processes ended, or the host was restarted, while there was no connection."""
        gone = {part: number - now.get(part, 0) for part, number in before.items() if number > now.get(part, 0)}
        if any(self._needed(part) for part in gone):
            ended = ", ".join(f"{number} × {part}" for part, number in gone.items())
            problem = f"processes ended while its connection was lost: {ended}"
            raise RankLostError(host, problem, kernel_log_remedy(host))

    def _read(self, host: str, message: WatchRanksReply) -> None:
        if "still" in message:
            self._stalls.note_activity(host, message["still"])
        for process in message.get("gone", ())[:MOST_LOST]:
            loss = Loss(host, process["title"], process["pid"], message.get("oom", ""))
            self.losses.append(loss)
            self._say(Event(SERVE, "note", host, f"{loss.title} (process {loss.pid}) is gone{_because(loss)}"))
            if self._needed(process["part"]):
                self._fail(loss)

    def _needed(self, part: str | None) -> bool:
        programs = any(is_program(instance) for instance in self._plan.instances)
        return part in ("raylet", "gcs_server") or not programs

    def _fail(self, loss: Loss) -> None:
        """Raise RankLostError, unless within GRACE_SECONDS the watch of the engine ends with a better message."""
        grace = Deadline(GRACE_SECONDS)
        while not grace.expired:
            if self._over.wait(min(0.1, grace.remaining)) or self._fleet.cancelled.is_set():
                return
        lines = self._error_lines(loss.host)
        problem = f"{loss.title} (process {loss.pid}) ended before the deployment was ready{_because(loss)}"
        remedy = kernel_log_remedy(loss.host) if loss.oom or not lines else ""
        error = RankLostError(loss.host, problem, remedy, lines)
        self._say(Event(SERVE, "failed", loss.host, error.problem, lines=error.lines[1:]))
        raise error

    def _error_lines(self, host: str) -> list[str]:
        """Return errors in logs of a host, then those of other hosts with their names before them."""
        with self._lock:
            kept = list(self._kept)
        by_host: dict[str, list[str]] = {host: []}
        for source, line in kept:
            by_host.setdefault(source, []).append(line)
        return [
            line if source == host else f"{source}: {line}"
            for source, lines in by_host.items()
            for line in error_lines(lines)
        ][:MOST_QUOTED]
