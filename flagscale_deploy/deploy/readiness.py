"""Wait until every instance has answered a request, and report its progress from the engine's log."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import urlsplit

from flagscale_deploy.config.spec import Timeouts
from flagscale_deploy.deploy.launch import Started, StepsFailedError
from flagscale_deploy.deploy.serving import is_elsewhere, port_remedy, verify
from flagscale_deploy.deploy.transfer import transfer_failure, watched_transfers
from flagscale_deploy.deploy.watchdog import StartupWatchdog, kernel_log_remedy
from flagscale_deploy.diagnosis.find import error_lines
from flagscale_deploy.diagnosis.progress import ASKING, Progress, Start
from flagscale_deploy.diagnosis.table import match
from flagscale_deploy.errors import InterruptedByUser, NotReadyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.model import InstancePlan, Plan, Server
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.rank import Rank
from flagscale_deploy.plan.stages import ROUTE, SERVE
from flagscale_deploy.remote.messages.program import NoOrder
from flagscale_deploy.remote.messages.run import WATCH, WatchArguments, WatchReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import Connection
from flagscale_deploy.transport.fleet import Fleet, GivenUpError, answers, failures
from flagscale_deploy.transport.reconnect import Bounds, through_losses
from flagscale_deploy.transport.remote_program import Program, at_once
from flagscale_deploy.transport.replies import brief

KEPT_LINES, LONGEST_KEPT = 400, 64 << 10
SLACK_SECONDS = 30
FOLLOWER_LOST_SECONDS = 5.0
"""How long a follower's host may be unreachable after its connection was lost: TCP has taken 30 s to notice a cut."""


class InstanceFailedError(RemoteError):
    """An instance has ended, or did not answer in time. `quoted` are the errors in its log."""

    exit_code = NotReadyError.exit_code

    def __init__(self, rank: Rank, problem: str, lines: Sequence[str], remedy: str = "") -> None:
        super().__init__(rank.host, f"{rank.name} {problem}", remedy, lines)


@dataclass(frozen=True)
class Ready:
    """An instance that serves: seconds since its start, and its endpoint ("" for a program without one).

    `finished`: it is a program that has ended with status 0.
    """

    seconds: float
    endpoint: str
    finished: bool = False


def wait_ready(plan: Plan, fleet: Fleet, started: Sequence[Started], timeouts: Timeouts, say: Sink) -> dict[str, Ready]:
    """Wait for all instances at the same time and watch their hosts; return them by name.

    Raises InstanceFailedError as soon as one of them fails, RankLostError when a process that it needs has ended on any
    host, ConnectError when its host is lost, StepsFailedError where several fail at the same time.
    """
    by_script = {(script.step.host, script.step.script): script for script in started}
    watchdog = StartupWatchdog(plan, fleet, timeouts.stall, say)
    group = _Group(plan, fleet, timeouts.ready, say, watchdog)
    watches = {
        rank.name: _Watch(group, server, rank, by_script[rank.host, rank.script])
        for server in plan.servers
        for rank in server.ranks
    }
    waiting = _Remaining(watches, watchdog)
    tasks: dict[str, Callable[[], Ready | None]] = {
        name: partial(waiting.until_all, watch) for name, watch in watches.items()
    }
    results = fleet.gather({**watchdog.tasks, **tasks}, fail_fast=True, together=True)
    failed = failures(results)
    causes = {name: error for name, error in failed.items() if not isinstance(error, GivenUpError)}
    if causes:
        raise StepsFailedError(causes) if len(causes) > 1 else next(iter(causes.values()))
    ready = {name: reply for name, reply in answers(results).items() if reply is not None}
    return {server.name: _slowest(server, ready) for server in plan.servers}


def _slowest(server: Server, ready: Mapping[str, Ready]) -> Ready:
    """Return when a server was ready as a whole, with the endpoint of its driver."""
    seconds = max(ready[rank.name].seconds for rank in server.ranks if rank.answers)
    return replace(ready[server.ranks[0].name], seconds=seconds)


def _silent(_host: str, _text: str) -> None:
    """Say nothing: the watchdog of the same host says that its connection was lost."""


class _Remaining:
    """Counts ranks that are to answer and did not, and ends the watch of all others after the last one."""

    def __init__(self, watches: Mapping[str, _Watch], watchdog: StartupWatchdog) -> None:
        self._watches = watches
        self._left = {name for name, watch in watches.items() if watch.rank.answers}
        self._watchdog, self._lock = watchdog, threading.Lock()

    def until_all(self, watch: _Watch) -> Ready | None:
        ready = watch.wait()
        if not watch.rank.answers:
            return ready
        with self._lock:
            self._left.discard(watch.rank.name)
            done = not self._left
            if not any(rank.name in self._left for rank in watch.server.ranks):
                self._watchdog.mark_ready(watch.server.name)
        if done:
            self._watchdog.stop()
            at_once(other.end for other in self._watches.values())
        return ready


@dataclass(frozen=True)
class _Group:
    """What the waits for all ranks share."""

    plan: Plan
    fleet: Fleet
    timeout: float
    say: Sink
    watchdog: StartupWatchdog


@dataclass
class _Watch:
    """The wait for one rank. A follower answers nobody: it is watched until `end`."""

    group: _Group
    server: Server
    rank: Rank
    started: Started
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    start: Start = field(default_factory=Start)
    fatal_cause: str | None = None
    """The log line's cause after which it can never be ready."""
    _messages: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _program: Program[WatchReply, NoOrder] | None = None

    def end(self) -> None:
        """End the watch of a follower: its group answers."""
        self._over.set()
        if self._program is not None:
            self._program.end_input()

    @property
    def stage(self) -> str:
        return SERVE if isinstance(self.server, InstancePlan) else ROUTE

    def wait(self) -> Ready | None:
        """Return when it has answered; None for a follower whose watch has ended.

        A follower is watched again after its connection was lost; a host that does not come back is lost.
        """
        fleet, host = self.group.fleet, self.rank.host
        if self.rank.answers:
            return self._watch(fleet.connection(host))
        bounds = Bounds(over=self._over.is_set)
        try:
            return through_losses(fleet, host, self._watch, heard=lambda: self._messages,
                                  patience=FOLLOWER_LOST_SECONDS, tell=_silent, bounds=bounds)  # fmt: skip
        except InterruptedByUser:
            if fleet.cancelled.is_set():
                raise
            return None

    def _watch(self, connection: Connection) -> Ready | None:
        fleet, timeout = self.group.fleet, self.group.timeout
        watch = Deadline(timeout)
        limit = timeout + SLACK_SECONDS
        with Program(connection, WATCH, self._arguments(), timeout=limit, cancelled=fleet.cancelled) as program:
            self._program = program
            if self._over.is_set():
                return None
            for message in program.messages():
                self._messages += 1
                self._read([str(line)[:LONGEST_KEPT] for line in message.get("lines", ())])
                if self.fatal_cause is not None:
                    raise self._failed(f"will never be ready: {self.fatal_cause}", watch)
                if message.get("healthy"):
                    self._tell(self.start.advance(ASKING))
                if message.get("ready") or message.get("finished"):
                    self._verify_elsewhere(message.get("at", ""), watch)
                    return self._ready(message, watch)
                if message.get("dead"):
                    status = message.get("exit_status")
                    how = (
                        self.group.watchdog.lost_process(self.kept) if status is None else f" with exit status {status}"
                    )
                    how, remedy = self._explain_end(how, message.get("oom", ""), status)
                    raise self._failed(f"ended {watch.elapsed:.1f} s after its start{how}", watch, remedy)
                if message.get("foreign"):
                    raise self._failed(f"cannot serve: {message['foreign']}", watch, port_remedy(self.rank.host))
                if "untransferred" in message:
                    problem, remedy = transfer_failure(self.group.plan, self.server, message["untransferred"])
                    raise self._failed(problem, watch, remedy)
                if message.get("timed_out"):
                    problem = f"is not ready after {timeout:g} s ({message['why']})"
                    raise self._failed(problem, watch, self._timeout_remedy())
        if self._over.is_set():
            return None
        raise self._failed("cannot be watched any more: the program on its host has ended", watch)

    def _arguments(self) -> WatchArguments:
        plan = self.group.plan
        args: WatchArguments = {
            "deployment": plan.deployment,
            "host": self.rank.host,
            "pid": self.started.pid,
            "start_ticks": self.started.start_ticks,
            "log": self.started.log,
            "url": self.rank.local_url,
            "model": self.server.served_name,
            "timeout": self.group.timeout,
        }
        if plan.restart.supervised:
            args["restart"] = {"run_id": plan.run_id, "script": self.started.step.script}
        if self._addresses is not None:
            args["program"] = {"addresses": list(self._addresses)}
        if data_ranks := [rank.data_rank for rank in self.server.ranks if rank.data_rank is not None]:
            args["data_ranks"] = data_ranks
        if (transfers := watched_transfers(plan, self.server)) is not None:
            args["transfers"] = transfers
        return args

    @property
    def _addresses(self) -> Mapping[str, str] | None:
        """Return the addresses at which a user's program may answer; None for an engine or router."""
        own = isinstance(self.server, InstancePlan) and is_program(self.server)
        return self.server.addresses if isinstance(self.server, InstancePlan) and own else None

    def _verify_elsewhere(self, at: str, watch: Deadline) -> None:
        """Have another host than the driver's verify that a program serves at its address `at`."""
        if self._addresses is None or not is_elsewhere(self._addresses, self.server.endpoint, at):
            return
        address = urlsplit(at).hostname if at in self._addresses else None
        host = next((node.host for node in self.group.plan.ray.nodes if node.node_ip == address), None)
        if host is None:
            raise self._failed(f"is said to serve at {brief(at)}, which is none of its addresses", watch)
        reply = verify(self.group.fleet, self.group.plan.deployment, host, at)
        if not reply["serves"]:
            remedy = port_remedy(host) if reply.get("foreign") else ""
            raise self._failed(f"does not serve on {host}: {reply['why']}", watch, remedy)

    def _ready(self, message: WatchReply, watch: Deadline) -> Ready:
        """Report and return an instance that is ready; a program may answer on another host than its driver's."""
        endpoint, text = self.server.endpoint, "ready"
        if self._addresses is not None:
            endpoint = self._addresses.get(message.get("at", ""), "")
            text = "finished" if message.get("finished") else f"ready at {endpoint}" if endpoint else "ready"
        self.group.say(Event(self.stage, "done", self.rank.host, self._text(text), elapsed=watch.elapsed))
        return Ready(watch.elapsed, endpoint, bool(message.get("finished")))

    def _read(self, lines: Sequence[str]) -> None:
        if lines:
            self.group.watchdog.add_output(self.server.name, self.rank.host, lines)
        for line in lines:
            self.kept.append(line)
            self._tell(self.start.read(line))
            signature = match(line)
            if signature is not None and signature.fatal:
                self.fatal_cause = signature.cause

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None and self.rank.answers:
            self.group.say(Event(self.stage, "progress", self.rank.host, self._text(progress.stage), progress.percent))

    def _text(self, text: str) -> str:
        return text if len(self.group.plan.servers) == len(self.server.ranks) == 1 else f"{self.rank.name}: {text}"

    def _explain_end(self, how: str, oom: str, status: int | None) -> tuple[str, str]:
        """Return text and remedy for an end; the log of a killed process shows no cause."""
        if oom:
            return f"{how}; {oom}", kernel_log_remedy(self.rank.host)
        if how or status is not None or error_lines(self.kept):
            return how, ""
        killed = " and left no error in its log: most likely it was killed by the kernel or by a person"
        return killed, kernel_log_remedy(self.rank.host)

    def _timeout_remedy(self) -> str:
        last = self.start.now
        seen = f"the last step in its log was: {last.stage}" if last else "its log shows no step of its start"
        return f"{seen}; raise deploy.timeouts.ready if it only needs more time"

    def _failed(self, problem: str, watch: Deadline, remedy: str = "") -> InstanceFailedError:
        lines = error_lines(self.kept) or list(self.kept)[-3:]
        error = InstanceFailedError(self.rank, problem, lines, remedy)
        host, elapsed = self.rank.host, watch.elapsed
        self.group.say(Event(self.stage, "failed", host, error.problem, elapsed=elapsed, lines=error.lines[1:]))
        return error
