"""Carries out a plan: the steps of a stage on all their hosts at once, each stage when those before it are done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flagscale_deploy import shell
from flagscale_deploy.deadline import Deadline
from flagscale_deploy.diagnosis.find import error_lines
from flagscale_deploy.errors import ConnectError, DeployError, HostError, NotReadyError, RemoteError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan, Stage, Step
from flagscale_deploy.secrets import Secret
from flagscale_deploy.transport.fleet import Fleet, GivenUpError, failures
from flagscale_deploy.transport.program import Program, library

CONNECTION_SLACK_SECONDS = 15
ANSWERED = {"pid", "start_ticks", "log", "exit_code", "tail"}
"""What `launch` tells; whatever else comes, however much, is not kept."""


@dataclass(frozen=True)
class Started:
    """A script that was started on a host and goes on running."""

    step: Step
    pid: int
    start_ticks: int | None
    log: str


class EndedAtOnceError(RemoteError):
    """A script that was to go on running, an engine's, ended as soon as it had started."""

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
        super().__init__("\n".join(str(error) for error in self.errors.values()))


def secret_files(secret_env: Mapping[str, Secret], ray_token: Secret) -> dict[str, str]:
    """The files of a run's secrets: Ray's token, and the environment that scripts read."""
    revealed = [(name, value.reveal()) for name, value in secret_env.items()]
    return {"secrets/ray_token": ray_token.reveal(), "secrets/env": shell.assignments(revealed)}


def execute(
    plan: Plan,
    fleet: Fleet,
    records: Mapping[str, Mapping[str, Any]],
    private: Mapping[str, Mapping[str, str]],
    say: Sink,
) -> list[Started]:
    """Start everything and return the detached steps. Raises StepsFailedError: the caller undoes what was started.

    `records` is each host's record, `private` its files with secrets, by name: both are sent with every script.
    """
    started: list[Started] = []
    done: set[str] = set()
    while len(done) < len(plan.stages):
        ready = [stage for stage in plan.stages if stage.name not in done and done.issuperset(stage.after)]
        started += _run_stages(ready, plan, fleet, records, private, say)
        done.update(stage.name for stage in ready)
    return started


def _run_stages(
    stages: list[Stage],
    plan: Plan,
    fleet: Fleet,
    records: Mapping[str, Mapping[str, Any]],
    private: Mapping[str, Mapping[str, str]],
    say: Sink,
) -> list[Started]:
    """Stages that wait for nothing more: all their steps at the same time, those of one host one after another."""
    by_host: dict[str, list[tuple[str, Step]]] = {}
    for stage in stages:
        for step in stage.steps:
            by_host.setdefault(step.host, []).append((stage.name, step))
    started: list[Started] = []
    keeping = threading.Lock()

    def work(host: Host) -> None:
        for stage, step in by_host[host.name]:
            result = _timed(stage, step, say, partial(_launch, step, plan, fleet, records, private))
            with keeping:
                started.append(result)

    results = fleet.map(work, by_host, fail_fast=True)
    failed = failures(results)
    if failed:
        causes = {name: error for name, error in failed.items() if not isinstance(error, GivenUpError)}
        raise StepsFailedError(causes or failed)
    return [each for each in started if each.step.detached]


def _timed(stage: str, step: Step, say: Sink, act: Callable[[], Started]) -> Started:
    watch = Deadline(step.timeout)
    say(Event(stage, "running", step.host, step.script))
    try:
        result = act()
    except HostError as error:
        say(Event(stage, "failed", step.host, error.problem, elapsed=watch.elapsed))
        raise
    if not step.detached:
        say(Event(stage, "done", step.host, step.script, elapsed=watch.elapsed))
    return result


def _launch(
    step: Step,
    plan: Plan,
    fleet: Fleet,
    records: Mapping[str, Mapping[str, Any]],
    private: Mapping[str, Mapping[str, str]],
) -> Started:
    files = {f"scripts/{name}": (text, "700") for name, text in plan.scripts[step.host].items()}
    files |= {f"app/{name}": (text, "600") for name, text in plan.app.items()}
    if plan.restart.supervised or plan.restart.boot:
        files |= {f"supervisor/{name}": (text, "600") for name, text in library("supervise", "boot").items()}
    files |= {name: (text, "600") for name, text in private[step.host].items()}
    args = {
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
    with Program(connection, "launch", args, timeout=timeout, cancelled=fleet.cancelled) as program:
        answer: dict[str, Any] = {}
        for message in program.messages():
            answer |= {name: message[name] for name in ANSWERED & message.keys()}
    if "exit_code" not in answer:
        raise RemoteError(step.host, f"{step.script}: the program that starts it ended without an answer")
    code = answer["exit_code"]
    if code not in (0, None) or (step.detached and code == 0 and not step.may_end):
        kind = EndedAtOnceError if step.detached else RemoteError
        raise kind(step.host, _failure(step, code, answer.get("tail", [])))
    return Started(step, answer["pid"], answer["start_ticks"], answer["log"])


def _failure(step: Step, code: int, tail: list[str]) -> str:
    lines = error_lines(tail) or tail[-3:]
    return f"{step.script} ended with exit status {code}" + "".join(f"\n    {line}" for line in lines)
