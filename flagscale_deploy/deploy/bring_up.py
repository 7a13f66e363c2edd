"""Brings a deployment up, and takes it down again where that does not work out."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from flagscale_deploy.config.program_files import program_config
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.deploy.launch import StepsFailedError, execute, secret_files, tls_files
from flagscale_deploy.deploy.readiness import wait_ready
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.deploy.stop import StopReport, stop_deployment
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import DeployError, HostError, InterruptedByUser, LockLostError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.logs import collect_logs, diagnose_folder
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.transport.fleet import Fleet, answers, failures


@dataclass(frozen=True)
class BroughtUp:
    """A deployment that has answered: seconds from each instance's start to its first token."""

    ready_after: Mapping[str, float]
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Where each instance was found to serve, by its name; "" for a program that has no port."""
    finished: tuple[str, ...] = ()
    """Programs that have done their work already."""


@dataclass(frozen=True)
class Failure:
    """A run that did not work out: what went wrong, why as far as logs say, and what was done about it."""

    error: DeployError
    diagnosis: Diagnosis | None = None
    logs: Mapping[str, int] = field(default_factory=dict)
    """Log files collected, by host."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Hosts whose logs did not come, with the reason."""
    stopped: StopReport | None = None
    """None: nothing was taken down, because the user wanted it kept."""


class RunFailedError(DeployError):
    """`run` did not end ready. Exit status: 1 a host failed, 3 one was lost, 5 never ready, 130 interrupted.

    `take_down` is the command line that ends what `--keep-on-failure` left.
    """

    take_down = ""

    def __init__(self, failure: Failure, folder: RunFolder, deployment: str) -> None:
        self.failure, self.folder, self.deployment = failure, folder, deployment
        self.exit_code = failure.error.exit_code
        super().__init__(str(failure.error) or type(failure.error).__name__)


def bring_up(
    plan: Plan,
    spec: ServeSpec,
    fleet: Fleet,
    facts: Mapping[str, Facts],
    folder: RunFolder,
    redactor: Redactor,
    say: Sink,
    *,
    keep_on_failure: bool,
) -> BroughtUp:
    """Carry out a plan and wait for a token of every instance.

    Raises RunFailedError after logs were collected and, unless they are to be kept, processes were ended.
    """
    token = Secret(secrets.token_hex(32))
    secret_env = {host: {**spec.secret_env, **fleet.hosts[host].secret_env} for host in plan.hosts}
    for secret in (token, *(each for known in secret_env.values() for each in known.values())):
        redactor.add(secret)
    records = {host: record_of(plan, host, facts, tuple(secret_env[host])) for host in plan.hosts}
    drivers = {each.driver for each in plan.servers}
    private = {host: _private(spec, secret_env[host], token, host in drivers) for host in plan.hosts}
    try:
        started = execute(plan, fleet, records, private, say)
        took = wait_ready(plan, fleet, started, spec.timeouts, say)
        if plan.restart.boot:
            outlive_reboots(plan, fleet, say)
    except (KeyboardInterrupt, DeployError) as error:
        cause = error if isinstance(error, DeployError) else InterruptedByUser("interrupted")
        failure = give_up(cause, plan, spec, fleet, folder, say, keep=keep_on_failure)
        raise RunFailedError(failure, folder, plan.deployment) from error
    except Exception as error:
        with suppress(OSError):  # what was started is taken down, also where nothing can be written here
            (folder.path / "error.txt").write_text(redactor.redact(traceback.format_exc()), encoding="utf-8")
        bug = DeployError(f"an error of this tool: {type(error).__name__}: {error} ({folder.path / 'error.txt'})")
        raise RunFailedError(
            give_up(bug, plan, spec, fleet, folder, say, keep=keep_on_failure), folder, plan.deployment
        ) from error
    return BroughtUp(
        {name: each.seconds for name, each in took.items()},
        {name: each.endpoint for name, each in took.items()},
        tuple(name for name, each in took.items() if each.finished),
    )


def outlive_reboots(plan: Plan, fleet: Fleet, say: Sink) -> None:
    """Have every host start its part again when it comes up; where that can't be had, it is said."""
    hosts = [name for name in plan.hosts if "boot.sh" in plan.scripts.get(name, {})]
    args = {"deployment": plan.deployment}
    results = fleet.call(
        "install_boot_entry",
        lambda host: {**args, "host": host.name, "container": bool(host.container)},
        timeout=60,
        hosts=hosts,
    )
    for name, result in results.items():
        answer = {"why": result.problem} if isinstance(result, HostError) else result
        if "by" in answer:
            say(Event("boot", "done", name, f"comes back after a reboot, by its {answer['by']}"))
        else:
            say(Event("boot", "note", name, f"does not come back after a reboot: {answer['why']}"))


def _private(spec: ServeSpec, secret_env: Mapping[str, Secret], token: Secret, serves: bool) -> dict[str, str]:
    """A host's files that only their owner may read: secrets, those of TLS where it `serves`, a program's
    configuration."""
    config = {"secrets/config.yaml": program_config(spec)} if spec.runs_program else {}
    return secret_files(secret_env, token) | tls_files(spec.tls if serves else None) | config


def give_up(
    error: DeployError, plan: Plan, spec: ServeSpec, fleet: Fleet, folder: RunFolder, say: Sink, *, keep: bool
) -> Failure:
    """Collect logs first, find the cause in them, then end what was started.

    A second Ctrl-C is for the logs: what was started is ended all the same.
    """
    failure = Failure(error)
    if isinstance(error, LockLostError):
        return failure  # the hosts are somebody else's now
    try:
        failure = _collect_evidence(error, plan, fleet, folder, say)
    except KeyboardInterrupt:
        say(Event("collect", "note", text="interrupted again: the logs stay on the hosts"))
    finally:
        stopped = None if keep else stop_deployment(fleet, plan.deployment, spec.timeouts.stop, say, plan.run_id)
    return replace(failure, stopped=stopped)


def _collect_evidence(error: DeployError, plan: Plan, fleet: Fleet, folder: RunFolder, say: Sink) -> Failure:
    say(Event("collect", "running", text="collecting logs of all hosts"))
    collected = collect_logs(fleet, plan.deployment, folder.logs)
    logs = {name: len(each.files) for name, each in answers(collected).items()}
    unread = {name: each.problem for name, each in failures(collected).items()}
    for name, each in answers(collected).items():
        if each.limit:
            say(Event("collect", "note", name, each.limit))
    say(Event("collect", "done", text=f"{sum(logs.values())} log files in {folder.logs}"))
    return Failure(error, _diagnosis(error, folder), logs, unread)


def _diagnosis(error: DeployError, folder: RunFolder) -> Diagnosis | None:
    """What the logs say, unless nothing went wrong on a host."""
    if isinstance(error, HostError | StepsFailedError):
        return diagnose_folder(folder.logs) if folder.logs.is_dir() else None
    return None


def failure_json(failure: Failure) -> dict[str, Any]:
    """A failure for report.json and `--json`."""
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
        "stopped": failure.stopped and {each.host: each.state for each in failure.stopped.hosts},
    }
