"""Bring a deployment up, and take it down again if that fails."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.deploy.gate import behind_gate
from flagscale_deploy.deploy.launch import StepsFailedError, execute
from flagscale_deploy.deploy.private_files import private_files, secrets_by_host
from flagscale_deploy.deploy.readiness import wait_ready
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.deploy.stop import StopReport, stop_deployment
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import (
    ConnectError,
    DeployError,
    HostError,
    InputError,
    InterruptedByUser,
    LockLostError,
    UnforeseenError,
)
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.logs import FileSelection, collect_logs, diagnose_folder
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.run import INSTALL_BOOT_ENTRY, PERMIT_RESTARTS, BootEntryReply
from flagscale_deploy.remote.messages.stop import RunFailure
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.support.units import counted
from flagscale_deploy.text import one_line
from flagscale_deploy.transport.fleet import Fleet, answers, failures

EVIDENCE = FileSelection(max_size=64 << 20, max_total=256 << 20, seconds=30.0)
"""How much of each host's logs a failed run collects before it stops what it started; `logs -o` brings the rest."""
LONGEST_CAUSE = 300
"""Characters of a failure's cause, and of its remedy, that the records of a run keep."""


@dataclass(frozen=True)
class BroughtUp:
    """A deployment that has answered; `ready_after` are seconds from start to first token, by instance."""

    ready_after: Mapping[str, float]
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Where each instance serves, by its name; "" for a program that has no port."""
    finished: tuple[str, ...] = ()
    """Programs that have ended with status 0."""


@dataclass(frozen=True)
class Failure:
    """A failed run: its error, the cause found in the logs, and what was cleaned up."""

    error: DeployError
    diagnosis: Diagnosis | None = None
    logs: Mapping[str, int] = field(default_factory=dict)
    """Log files collected, by host."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Hosts whose logs could not be collected, with the reason."""
    stopped: StopReport | None = None
    """None where nothing was stopped (`--keep-on-failure`), or an interrupt ended that."""
    kept: bool = False
    """Whether what was started was to be left (`--keep-on-failure`)."""


class RunFailedError(DeployError):
    """`run` failed after its start. Exit status: 1 a host failed, 3 one was lost, 5 never ready, 130 interrupted.

    `take_down` is the command line that stops what `--keep-on-failure` left running.
    """

    take_down = ""

    def __init__(self, failure: Failure, folder: RunFolder, deployment: str) -> None:
        self.failure, self.folder, self.deployment = failure, folder, deployment
        self.exit_code = failure.error.exit_code
        super().__init__(*failure.error.lines)


@dataclass(frozen=True)
class Run:
    """A run under way: its plan, its hosts, and where its files and its progress go."""

    plan: Plan
    spec: ServeSpec
    fleet: Fleet
    folder: RunFolder
    redactor: Redactor
    say: Sink
    secret_hash: str = ""
    hides_logs: bool = False
    kept: Mapping[str, str] = field(default_factory=dict)
    """What the hosts keep of the run: a text by its path."""


def bring_up(run: Run, facts: Mapping[str, Facts], *, keep_on_failure: bool = False) -> BroughtUp:
    """Carry out the plan and wait for a token from every instance.

    Raises RunFailedError after logs were collected and, without `keep_on_failure`, what was started was stopped.
    """
    plan, spec, fleet = run.plan, run.spec, run.fleet
    env, at_gate = behind_gate(plan.gate, spec.gate, secrets_by_host(plan, spec, fleet))
    records = {host: record_of(plan, host, facts, tuple(env[host]), run.secret_hash) for host in plan.hosts}
    private = private_files(plan, spec, env, run.redactor, ray_token=Secret(secrets.token_hex(32)))
    private[plan.head] |= at_gate
    try:
        started = execute(plan, fleet, records, private, run.say, run.kept)
        instances = wait_ready(plan, fleet, started, spec.timeouts, run.say)
        if plan.restart.supervised:
            permit_ray_restarts(plan, fleet, run.say)
        if plan.restart.boot:
            install_boot_entries(plan, fleet, run.say)
    except (KeyboardInterrupt, DeployError) as error:
        cause = error if isinstance(error, DeployError) else InterruptedByUser("interrupted")
        if isinstance(error, UnforeseenError):
            cause = DeployError(*error.lines, f"    its traceback: {_traceback(run)}")
        raise RunFailedError(_give_up(run, cause, keep_on_failure), run.folder, plan.deployment) from error
    except Exception as error:
        bug = DeployError(f"internal error: {type(error).__name__}: {error}; please report it with {_traceback(run)}")
        raise RunFailedError(_give_up(run, bug, keep_on_failure), run.folder, plan.deployment) from error
    return BroughtUp(
        {name: instance.seconds for name, instance in instances.items()},
        {name: instance.endpoint for name, instance in instances.items()},
        tuple(name for name, instance in instances.items() if instance.finished),
    )


def _traceback(run: Run) -> Path:
    """Write the traceback of the error being handled, without secrets; return its file."""
    with suppress(InputError):  # what was started is stopped all the same
        run.folder.write("error.txt", run.redactor.redact(traceback.format_exc()))
    return run.folder.path / "error.txt"


def permit_ray_restarts(plan: Plan, fleet: Fleet, say: Sink, hosts: Collection[str] | None = None) -> None:
    """Permit restarts of the Ray node of every host (or those named); note where that was not possible."""
    scripts = {node.host: f"ray_{node.role}.sh" for node in plan.ray.nodes if hosts is None or node.host in hosts}
    results = fleet.call(
        PERMIT_RESTARTS,
        lambda host: {
            "deployment": plan.deployment,
            "host": host.name,
            "run_id": plan.run_id,
            "scripts": [scripts[host.name]],
        },
        timeout=60,
        hosts=scripts,
    )
    for name, error in failures(results).items():
        say(Event("ray-nodes", "note", name, f"its Ray node is not restarted if it dies: {error.problem}"))


def install_boot_entries(plan: Plan, fleet: Fleet, say: Sink) -> None:
    """Make every host start its part again after a reboot; note the hosts where that is not possible."""
    hosts = [name for name in plan.hosts if "boot.sh" in plan.scripts.get(name, {})]
    results = fleet.call(
        INSTALL_BOOT_ENTRY,
        lambda host: {"deployment": plan.deployment, "host": host.name, "container": bool(host.container)},
        timeout=60,
        hosts=hosts,
    )
    for name, result in results.items():
        reply: BootEntryReply = {"why": result.problem} if isinstance(result, HostError) else result
        if "by" in reply:
            say(Event("boot", "done", name, f"starts again after a reboot ({reply['by']})"))
        else:
            say(Event("boot", "note", name, f"does not start again after a reboot: {reply['why']}"))


def _give_up(run: Run, error: DeployError, keep: bool) -> Failure:
    """Collect logs, find the cause in them, then stop what was started unless `keep` is set.

    An interrupt ends the collection only: what was started is stopped all the same.
    """
    failure, began = Failure(error), time.monotonic()
    if isinstance(error, LockLostError):
        return failure  # another command changes the hosts now
    try:
        failure = find_cause(run, failure)
    finally:
        stopped = None if keep else _take_down(run, _cause(run, failure, began))
    return replace(failure, stopped=stopped, kept=keep)


def find_cause(run: Run, failure: Failure) -> Failure:
    """Return a failure with the logs of all hosts, and the cause that they show. An interrupt ends the collection."""
    try:
        failure = _collect_evidence(run, failure)
    except KeyboardInterrupt:
        run.say(Event("collect", "note", text="interrupted again: the logs stay on the hosts"))
    return replace(failure, diagnosis=_diagnosis(failure.error, run.folder))


def _cause(run: Run, failure: Failure, at: float) -> RunFailure:
    """Return why a run failed at a monotonic time, for its records: short, on one line, without secrets."""
    error, diagnosis = failure.error, failure.diagnosis
    if isinstance(error, StepsFailedError):
        error = next(iter(error.errors.values()))
    cause, remedy = error.lines[0], error.remedy if isinstance(error, HostError) else ""
    if diagnosis is not None and not isinstance(error, ConnectError):
        cause, remedy = f"{diagnosis.host}: {diagnosis.cause or diagnosis.line}", diagnosis.remedy
    cause, remedy = (cut(one_line(run.redactor.redact(text)), LONGEST_CAUSE) for text in (cause, remedy))
    return {"ago": time.monotonic() - at, "cause": cause, "remedy": remedy}


def _take_down(run: Run, cause: RunFailure) -> StopReport | None:
    """Stop what was started, also after an interrupt; None after another one."""
    deployment, grace = run.plan.deployment, run.spec.timeouts.stop
    for text in ("interrupted: stopping goes on; interrupt once more to leave what was started as it is", ""):
        try:
            return stop_deployment(run.fleet, deployment, grace, run.say, run.plan.run_id, cause)
        except KeyboardInterrupt:
            if text:
                run.say(Event("stop", "note", text=text))
    return None


def _collect_evidence(run: Run, failure: Failure) -> Failure:
    """Collect logs within the bounds of EVIDENCE, because GPUs are taken until it is done."""
    run.say(Event("collect", "running", text="collecting logs of all hosts"))
    selection = replace(EVIDENCE, redactor=run.redactor) if run.hides_logs else EVIDENCE
    results = collect_logs(run.fleet, run.plan.deployment, run.folder.here / "logs", selection=selection)
    collected = answers(results)
    for host, logs in collected.items():
        if logs.limit:
            run.say(Event("collect", "note", host, logs.limit))
    files = {host: len(logs.files) for host, logs in collected.items()}
    text = f"{counted(sum(files.values()), 'log file')} in {run.folder.logs}"
    run.say(Event("collect", "done", text=text))
    names = str(run.folder.here), str(run.folder.path)
    unread = {host: fault.problem.replace(*names) for host, fault in failures(results).items()}
    return replace(failure, logs=files, unread=unread)


def _diagnosis(error: DeployError, folder: RunFolder) -> Diagnosis | None:
    """Return the cause found in the collected logs; None for an error that no host caused."""
    if isinstance(error, HostError | StepsFailedError):
        logs = folder.here / "logs"
        return diagnose_folder(logs) if logs.is_dir() else None
    return None


def failure_json(failure: Failure) -> dict[str, object]:
    """Return a failure as report.json and `--json` show it."""
    diagnosis = failure.diagnosis
    return {
        "error": str(failure.error),
        "exit_code": failure.error.exit_code,
        "cause": diagnosis
        and {
            "host": diagnosis.host,
            "file": diagnosis.file,
            "line": diagnosis.line,
            "cause": diagnosis.cause,
            "remedy": diagnosis.remedy,
            "signature": diagnosis.signature,
            "source": diagnosis.source,
        },
        "logs": dict(failure.logs),
        "unread": dict(failure.unread),
        "stopped": failure.stopped and {host.host: host.state for host in failure.stopped.hosts},
    }
