"""Carry out a plan: all hosts at once, and each host's steps in order, as soon as the stages they need are done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flagscale_deploy.config.spec import TlsSpec
from flagscale_deploy.diagnosis.find import error_lines
from flagscale_deploy.errors import (
    ConnectError,
    DeployError,
    HostError,
    NoReplyError,
    NotReadyError,
    RemoteError,
)
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.gate.sources import files as gate_files
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan, Stage, Step
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.run import LAUNCH, LaunchArguments, LaunchReply
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support import shell
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.bundle import library
from flagscale_deploy.transport.fleet import Fleet, GivenUpError, failures
from flagscale_deploy.transport.remote_program import Program

CONNECTION_SLACK_SECONDS = 15
TOKEN_FILE = "secrets/ray_token"


@dataclass(frozen=True)
class Started:
    """A script that was started on a host."""

    step: Step
    pid: int
    start_ticks: int | None
    log: str


class EndedAtOnceError(RemoteError):
    """A script that should keep running (an engine's) ended right after its start."""

    exit_code = NotReadyError.exit_code


class StepsFailedError(DeployError):
    """One or more steps failed; every host's own error is kept.

    Exit status: 3 when a host was lost, 5 when only engines ended, 1 otherwise.
    """

    def __init__(self, errors: Mapping[str, HostError]) -> None:
        self.errors = dict(errors)
        codes = {error.exit_code for error in self.errors.values()}
        self.exit_code = next((code for code in (ConnectError.exit_code, DeployError.exit_code) if code in codes),
                              NotReadyError.exit_code)  # fmt: skip
        super().__init__(*(line for error in self.errors.values() for line in error.lines))


def secret_files(secret_env: Mapping[str, Secret], ray_token: Secret | None) -> dict[str, str]:
    """Return the files with a run's secrets: the environment that scripts read, and Ray's token where it is given."""
    revealed = [(name, value.reveal()) for name, value in secret_env.items()]
    token = {TOKEN_FILE: ray_token.reveal()} if ray_token is not None else {}
    return {**token, "secrets/env": shell.assignments(revealed)}


def tls_files(tls: TlsSpec | None) -> dict[str, str]:
    """Return the files of `deploy.tls` that are sent.

    The key is not given to the redactor: no variable holds it, and with its many lines the redactor would take a
    thousand times as long for a log.
    """
    sent = tls.sent if tls is not None else {}
    return {
        f"secrets/{name}": content.reveal() if isinstance(content, Secret) else content
        for name, content in sent.items()
    }


def execute(
    plan: Plan,
    fleet: Fleet,
    records: Mapping[str, Record],
    private: Mapping[str, Mapping[str, str]],
    say: Sink,
    kept: Mapping[str, str] | None = None,
) -> list[Started]:
    """Start everything and return the scripts that keep running. Raises StepsFailedError; the caller stops the rest.

    A plan's stages are in an order in which they can be done. `records` are the hosts' records, `private` their files
    with secrets by name; both are sent with every script. `kept` are files that each host gets with its first one.
    """
    by_host: dict[str, list[tuple[Stage, Step]]] = {}
    for stage in plan.stages:
        for step in stage.steps:
            by_host.setdefault(step.host, []).append((stage, step))
    started: list[Started] = []
    order = _Order(plan.stages)

    def work(host: Host) -> None:
        files = {**(kept or {}), **private[host.name]}
        for stage, step in by_host[host.name]:
            order.wait_for(stage.after, fleet)
            result = _timed(stage.name, step, say, partial(_launch, step, plan, fleet, records, files))
            files = dict(private[host.name])
            order.end_step(stage.name)
            started.append(result)

    results = fleet.gather({name: partial(work, fleet.hosts[name]) for name in by_host}, fail_fast=True, together=True)
    failed = failures(results)
    if failed:
        causes = {name: error for name, error in failed.items() if not isinstance(error, GivenUpError)}
        raise StepsFailedError(causes or failed)
    return [script for script in started if script.step.detached]


class _Order:
    """Keeps track of which stages are done: those whose steps all are."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._changing = threading.Lock()
        self._left = {stage.name: len(stage.steps) for stage in stages}
        self._done = {stage.name: threading.Event() for stage in stages}

    def end_step(self, stage: str) -> None:
        with self._changing:
            self._left[stage] -= 1
            if self._left[stage] == 0:
                self._done[stage].set()

    def wait_for(self, stages: Iterable[str], fleet: Fleet) -> None:
        """Wait until stages are done. Raises InterruptedByUser where the fleet is cancelled."""
        for stage in stages:
            fleet.wait_for(self._done[stage])


def _timed(stage: str, step: Step, say: Sink, act: Callable[[], Started]) -> Started:
    watch = Deadline(step.timeout)
    say(Event(stage, "running", step.host, step.script))
    try:
        result = act()
    except HostError as error:
        say(Event(stage, "failed", step.host, error.problem, elapsed=watch.elapsed, lines=error.lines[1:]))
        raise
    if not step.detached:
        say(Event(stage, "done", step.host, step.script, elapsed=watch.elapsed))
    return result


def _launch(
    step: Step,
    plan: Plan,
    fleet: Fleet,
    records: Mapping[str, Record],
    private: Mapping[str, str],
) -> Started:
    files = {f"scripts/{name}": (text, "700") for name, text in plan.scripts[step.host].items()}
    files |= {f"app/{name}": (text, "600") for name, text in plan.app.items()}
    if plan.restart.supervised or plan.restart.boot:
        files |= {
            f"supervisor/{name}": (text, "600")
            for name, text in library("supervise", "ray_node", "notify", "boot").items()
        }
    if plan.gate is not None and step.host == plan.gate.driver:
        files |= {f"gate/{name}": (text, "600") for name, text in gate_files().items()}
    files |= {name: (text, "600") for name, text in private.items()}
    args: LaunchArguments = {
        "deployment": plan.deployment,
        "host": step.host,
        "run_id": plan.run_id,
        "record": records[step.host],
        "files": files,
        "script": step.script,
        "role": step.role,
        "detached": step.detached,
        "timeout": step.timeout,
        "session": plan.ray.session,
    }
    connection = fleet.connection(step.host)
    timeout = step.timeout + CONNECTION_SLACK_SECONDS
    with Program(connection, LAUNCH, args, timeout=timeout, cancelled=fleet.cancelled) as program:
        began: LaunchReply = {}
        ended: LaunchReply = {}
        for message in program.messages():  # whatever else comes, however much, is not kept
            began = message if "pid" in message else began
            ended = message if "exit_code" in message else ended
    if "exit_code" not in ended:
        raise NoReplyError(step.host, f"{step.script}: the program that starts it ended without a reply")
    code = ended["exit_code"]
    if code is not None and (code != 0 or (step.detached and not step.may_end)):
        kind = EndedAtOnceError if step.detached else RemoteError
        tail = ended.get("tail", [])
        quoted = error_lines(tail) or tail[-3:]
        raise kind(step.host, f"{step.script} ended with exit status {code}", quoted=quoted)
    return Started(step, began["pid"], began["start_ticks"], began["log"])
