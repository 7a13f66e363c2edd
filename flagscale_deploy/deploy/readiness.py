"""Wait until every instance has answered a request, and report its progress from the engine's log."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from flagscale_deploy.config.spec import Timeouts
from flagscale_deploy.deploy.launch import Started, StepsFailedError
from flagscale_deploy.deploy.serving import is_elsewhere, verify
from flagscale_deploy.deploy.watchdog import StartupWatchdog, kernel_log_remedy
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
    """An instance has ended, or did not answer in time. `quoted` are the errors in its log."""

    exit_code = NotReadyError.exit_code

    def __init__(self, instance: Server, problem: str, lines: Sequence[str], remedy: str = "") -> None:
        self.instance = instance
        super().__init__(instance.driver, f"{instance.name} {problem}", remedy, lines)


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
    watches = {
        instance.name: _Watch(
            plan, instance, by_script[instance.driver, instance.script], timeouts.ready, say, watchdog
        )
        for instance in plan.servers
    }
    waiting = _Remaining(len(watches), watchdog)
    tasks: dict[str, Callable[[], Ready | None]] = {
        name: partial(waiting.until_all, name, partial(watch.wait, fleet)) for name, watch in watches.items()
    }
    results = fleet.gather({**watchdog.tasks, **tasks}, fail_fast=True, together=True)
    failed = failures(results)
    causes = {name: error for name, error in failed.items() if not isinstance(error, GivenUpError)}
    if causes:
        raise StepsFailedError(causes) if len(causes) > 1 else next(iter(causes.values()))
    return {name: ready for name, ready in answers(results).items() if ready is not None}


class _Remaining:
    """Counts instances that are not ready, and stops the watchdog after the last one."""

    def __init__(self, instances: int, watchdog: StartupWatchdog) -> None:
        self._left, self._watchdog, self._lock = instances, watchdog, threading.Lock()

    def until_all(self, name: str, wait: Callable[[], Ready]) -> Ready:
        ready = wait()
        self._watchdog.mark_ready(name)
        with self._lock:
            self._left -= 1
        if not self._left:
            self._watchdog.stop()
        return ready


@dataclass
class _Watch:
    """The wait for one instance."""

    plan: Plan
    instance: Server
    started: Started
    timeout: float
    say: Sink
    watchdog: StartupWatchdog
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    start: Start = field(default_factory=Start)
    fatal_cause: str | None = None
    """The log line's cause after which it can never be ready."""

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
                if self.fatal_cause is not None:
                    raise self._failed(f"will never be ready: {self.fatal_cause}", watch)
                if message.get("healthy"):
                    self._tell(self.start.advance(ASKING))
                if message.get("ready") or message.get("finished"):
                    self._verify_elsewhere(message.get("at", ""), fleet, watch)
                    return self._ready(message, watch)
                if message.get("dead"):
                    status = message.get("exit_status")
                    how = self.watchdog.lost_process(self.kept) if status is None else f" with exit status {status}"
                    how, remedy = self._explain_end(how, message.get("oom", ""), status)
                    raise self._failed(f"ended {watch.elapsed:.1f} s after its start{how}", watch, remedy)
                if message.get("foreign"):
                    raise self._failed(
                        f"cannot serve: {message['foreign']}", watch, self._port_remedy(self.instance.driver)
                    )
                if message.get("timed_out"):
                    problem = f"is not ready after {self.timeout:g} s ({message['why']})"
                    raise self._failed(problem, watch, self._timeout_remedy())
        raise self._failed("cannot be watched any more: the program on its host has ended", watch)

    @property
    def _addresses(self) -> Mapping[str, str] | None:
        """Return the addresses at which a user's program may answer; None for an engine or router."""
        program = isinstance(self.instance, InstancePlan) and is_program(self.instance)
        return self.instance.addresses if isinstance(self.instance, InstancePlan) and program else None

    def _verify_elsewhere(self, at: str, fleet: Fleet, watch: Deadline) -> None:
        """Have another host than the driver's verify that a program serves at its address `at`."""
        if self._addresses is None or not is_elsewhere(self._addresses, self.instance.endpoint, at):
            return
        host = next(node.host for node in self.plan.ray.nodes if node.node_ip == urlsplit(at).hostname)
        reply = verify(fleet, self.plan.deployment, host, at)
        if not reply["serves"]:
            remedy = self._port_remedy(host) if reply.get("foreign") else ""
            raise self._failed(f"does not serve on {host}: {reply['why']}", watch, remedy)

    def _ready(self, message: WatchReply, watch: Deadline) -> Ready:
        """Report and return an instance that is ready; a program may answer on another host than its driver's."""
        endpoint, text = self.instance.endpoint, "ready"
        if self._addresses is not None:
            endpoint = self._addresses.get(message.get("at", ""), "")
            text = "finished" if message.get("finished") else f"ready at {endpoint}" if endpoint else "ready"
        self.say(Event(self.stage, "done", self.instance.driver, self._text(text), elapsed=watch.elapsed))
        return Ready(watch.elapsed, endpoint, bool(message.get("finished")))

    def _read(self, lines: Sequence[str]) -> None:
        if lines:
            self.watchdog.add_output(self.instance.name, lines)
        for line in lines:
            self.kept.append(line)
            self._tell(self.start.read(line))
            signature = match(line)
            if signature is not None and signature.fatal:
                self.fatal_cause = signature.cause

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None:
            self.say(Event(self.stage, "progress", self.instance.driver, self._text(progress.stage), progress.percent))

    def _text(self, text: str) -> str:
        return text if len(self.plan.servers) == 1 else f"{self.instance.name}: {text}"

    def _explain_end(self, how: str, oom: str, status: int | None) -> tuple[str, str]:
        """Return text and remedy for an end; the log of a killed process shows no cause."""
        if oom:
            return f"{how}; {oom}", kernel_log_remedy(self.instance.driver)
        if how or status is not None or error_lines(self.kept):
            return how, ""
        killed = " and left no error in its log: most likely it was killed by the kernel or by a person"
        return killed, kernel_log_remedy(self.instance.driver)

    def _timeout_remedy(self) -> str:
        now = self.start.now
        last = "its log shows no step of its start" if now is None else f"the last step in its log was: {now.stage}"
        return f"{last}; raise deploy.timeouts.ready if it only needs more time"

    def _port_remedy(self, host: str) -> str:
        return f"end that process (`ss -ltnp` on {host} shows it), or choose another port"

    def _failed(self, problem: str, watch: Deadline, remedy: str = "") -> InstanceFailedError:
        lines = error_lines(self.kept) or list(self.kept)[-3:]
        error = InstanceFailedError(self.instance, problem, lines, remedy)
        host, elapsed = self.instance.driver, watch.elapsed
        self.say(Event(self.stage, "failed", host, error.problem, elapsed=elapsed, lines=error.lines[1:]))
        return error
