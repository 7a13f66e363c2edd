"""Waits until every instance has really answered, and reads its progress from the engine's log meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from flagscale_deploy.config.spec import Timeouts
from flagscale_deploy.deploy.launch import Started, StepsFailedError
from flagscale_deploy.deploy.watchdog import Vigil, look_at_kernel
from flagscale_deploy.diagnosis.find import error_lines
from flagscale_deploy.diagnosis.progress import ASKING, Progress, Start
from flagscale_deploy.diagnosis.table import match
from flagscale_deploy.errors import NotReadyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.plan.model import InstancePlan, Plan, RouterPlan, Server
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.stages import ROUTE, SERVE
from flagscale_deploy.remote.messages.run import WATCH, WatchArguments, WatchReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet, GivenUpError, answers, failures
from flagscale_deploy.transport.remote_program import Program

KEPT_LINES, LONGEST_KEPT = 400, 64 << 10
SLACK_SECONDS = 30


class InstanceFailedError(RemoteError):
    """An instance whose process ended, or that did not answer in time. `lines` are the errors in its log."""

    exit_code = NotReadyError.exit_code

    def __init__(self, instance: Server, problem: str, lines: Sequence[str], remedy: str = "") -> None:
        self.instance, self.lines = instance, tuple(lines)
        shown = "".join(f"\n    {line}" for line in lines)
        super().__init__(instance.driver, f"{instance.name} {problem}{shown}", remedy)


@dataclass(frozen=True)
class Ready:
    """An instance that serves: seconds from its start, and the endpoint it was found at ("" for a program without).

    `finished`: it is a program that has done its work, and serves no more.
    """

    seconds: float
    endpoint: str
    finished: bool = False


def wait_ready(plan: Plan, fleet: Fleet, started: Sequence[Started], timeouts: Timeouts, say: Sink) -> dict[str, Ready]:
    """Wait for every instance at the same time, and watch every host meanwhile; by instance name.

    Raises InstanceFailedError at once when one of them fails, RankLostError when a process that it needs has ended on
    any host, ConnectError when its host can't be heard any more, StepsFailedError where several do at the same time.
    """
    by_script = {(each.step.host, each.step.script): each for each in started}
    vigil = Vigil(plan, fleet, timeouts.stall, say)
    watches = {
        instance.name: _Watch(plan, instance, by_script[instance.driver, instance.script], timeouts.ready, say, vigil)
        for instance in plan.servers
    }
    waiting = _Waiting(len(watches), vigil)
    tasks: dict[str, Callable[[], Ready | None]] = {
        name: partial(waiting.until_all, name, partial(watch.wait, fleet)) for name, watch in watches.items()
    }
    results = fleet.gather({**vigil.tasks, **tasks}, fail_fast=True, together=True)
    failed = failures(results)
    causes = {name: error for name, error in failed.items() if not isinstance(error, GivenUpError)}
    if causes:
        raise StepsFailedError(causes) if len(causes) > 1 else next(iter(causes.values()))
    return {name: found for name, found in answers(results).items() if found is not None}


class _Waiting:
    """Ends the vigil when the last instance is ready."""

    def __init__(self, instances: int, vigil: Vigil) -> None:
        self._left, self._vigil, self._lock = instances, vigil, threading.Lock()

    def until_all(self, name: str, wait: Callable[[], Ready]) -> Ready:
        ready = wait()
        self._vigil.ready(name)
        with self._lock:
            self._left -= 1
        if not self._left:
            self._vigil.end()
        return ready


@dataclass
class _Watch:
    """One instance being waited for."""

    plan: Plan
    instance: Server
    started: Started
    timeout: float
    say: Sink
    vigil: Vigil
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    start: Start = field(default_factory=Start)
    hopeless: str | None = None
    """Why waiting is no use any more."""

    @property
    def stage(self) -> str:
        return ROUTE if isinstance(self.instance, RouterPlan) else SERVE

    def wait(self, fleet: Fleet) -> Ready:
        watch = Deadline(self.timeout)
        args: WatchArguments = {
            "deployment": self.plan.deployment,
            "host": self.instance.driver,
            "pid": self.started.pid,
            "start_ticks": self.started.start_ticks,
            "log": self.started.log,
            "url": self.instance.local_url,
            "model": self.instance.served_name,
            "timeout": self.timeout,
        }
        if self.plan.restart.supervised:
            args["restart"] = {"run_id": self.plan.run_id, "script": self.started.step.script}
        if self._addresses is not None:
            args["program"] = {"addresses": list(self._addresses)}
        connection = fleet.connection(self.instance.driver)
        limit = self.timeout + SLACK_SECONDS
        with Program(connection, WATCH, args, timeout=limit, cancelled=fleet.cancelled) as program:
            for message in program.messages():
                self._read([str(line)[:LONGEST_KEPT] for line in message.get("lines", ())])
                if self.hopeless is not None:
                    raise self._failed(f"will never be ready: {self.hopeless}", watch)
                if message.get("healthy"):
                    self._tell(self.start.advance(ASKING))
                if message.get("ready") or message.get("finished"):
                    return self._ready(message, watch)
                if message.get("dead"):
                    status = message.get("exit_status")
                    how = self.vigil.blames(self.kept) if status is None else f" with exit status {status}"
                    how, remedy = self._silent_end(how, message.get("oom", ""), status)
                    raise self._failed(f"ended {watch.elapsed:.1f} s after its start{how}", watch, remedy)
                if message.get("timed_out"):
                    problem = f"is not ready after {self.timeout:g} s ({message['why']})"
                    raise self._failed(problem, watch, self._why_so_long())
        raise self._failed("cannot be watched any more", watch)

    @property
    def _addresses(self) -> Mapping[str, str] | None:
        """Where a program may answer; None for what is no program."""
        program = isinstance(self.instance, InstancePlan) and is_program(self.instance)
        return self.instance.addresses if isinstance(self.instance, InstancePlan) and program else None

    def _ready(self, message: WatchReply, watch: Deadline) -> Ready:
        """A program may answer on another host than its driver's."""
        endpoint, text = self.instance.endpoint, "ready"
        if self._addresses is not None:
            endpoint = self._addresses.get(message.get("at", ""), "")
            text = "finished" if message.get("finished") else f"ready at {endpoint}" if endpoint else "ready"
        self.say(Event(self.stage, "done", self.instance.driver, self._text(text), elapsed=watch.elapsed))
        return Ready(watch.elapsed, endpoint, bool(message.get("finished")))

    def _read(self, lines: Sequence[str]) -> None:
        if lines:
            self.vigil.heard(self.instance.name, lines)
        for line in lines:
            self.kept.append(line)
            self._tell(self.start.read(line))
            known = match(line)
            if known is not None and known.fatal:
                self.hopeless = known.cause

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None:
            self.say(Event(self.stage, "progress", self.instance.driver, self._text(progress.stage), progress.percent))

    def _text(self, text: str) -> str:
        return text if len(self.plan.servers) == 1 else f"{self.instance.name}: {text}"

    def _silent_end(self, how: str, oom: str, status: int | None) -> tuple[str, str]:
        """What is told of an end that the log says nothing of, and where to look: who is killed has no last word."""
        if oom:
            return f"{how}; {oom}", look_at_kernel(self.instance.driver)
        if how or status is not None or error_lines(self.kept):
            return how, ""
        silent = " and left no error in its log: most likely it was killed, from outside or by the kernel"
        return silent, look_at_kernel(self.instance.driver)

    def _why_so_long(self) -> str:
        now = self.start.now
        last = "its log tells of no step of its start" if now is None else f"the last step of its log was: {now.stage}"
        return f"{last}; raise deploy.timeouts.ready where it only needs longer"

    def _failed(self, problem: str, watch: Deadline, remedy: str = "") -> InstanceFailedError:
        lines = error_lines(self.kept) or list(self.kept)[-3:]
        error = InstanceFailedError(self.instance, problem, lines, remedy)
        text = error.problem + (f"\n    → {remedy}" if remedy else "")
        self.say(Event(self.stage, "failed", self.instance.driver, text, elapsed=watch.elapsed))
        return error
