"""Bring a deployment up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from flagscale_deploy.api.describing import describe, kept_files
from flagscale_deploy.api.elsewhere import refuse_second
from flagscale_deploy.api.planning import changes, load_sources, observe_hosts
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.api.reserving import plan_and_reserve, released_before_start
from flagscale_deploy.checks.registry import refuse_unskippable
from flagscale_deploy.config.gate import KEY_VARIABLE
from flagscale_deploy.deploy.bring_up import BroughtUp, Run, RunFailedError, bring_up, failure_json
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS, lock
from flagscale_deploy.deploy.probe_hosts import facts_of
from flagscale_deploy.deploy.run_folder import RunFolder, runs
from flagscale_deploy.deploy.secret_hash import same_secrets
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.errors import CheckError, InputError, InterruptedByUser
from flagscale_deploy.events import Event, Journal, JsonLines, Sink, silent, stage_seconds
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.entrances import GATE
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import digest
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet

FEW = 3
"""Changes that a message names."""


@dataclass(frozen=True)
class RunResult:
    """A deployment that answers requests.

    `plan`, `up` and `folder` are None, and `status` is not, where the same deployment ran already.
    """

    plan: Plan | None
    status: Status | None
    up: BroughtUp | None
    folder: RunFolder | None
    endpoints: tuple[tuple[str, str], ...]
    """(endpoint, served model name) of every instance that has an endpoint; the name is "" for a program."""
    secured: bool
    """Whether clients need an API key."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each stage took; stages overlap."""
    elapsed: float = 0.0
    authority: str | None = None
    """A local CA file with which clients can verify an `https` endpoint, where one is known."""


def run(
    request: Request,
    options: PlanOptions = PlanOptions(),
    *,
    keep_on_failure: bool = False,
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink = silent,
    command: str = "run",
) -> RunResult:
    """Bring the deployment up, or find that the very same one runs already.

    `lock_wait` is in seconds; `command` is what the lock shows to other commands. Raises InputError,
    HostsUnreachableError, CheckError and LockedError with nothing started, and RunFailedError afterwards.
    """
    spec, redactor = request.serve, redactor or request.redactor
    for secret in request.secrets:
        redactor.add(secret)
    refuse_unskippable(options.skip)
    refuse_wrong(spec)
    sources = load_sources(request, options)
    runs(spec.exp_dir)  # before any host is contacted
    history: list[Event] = []
    journal = Journal([say, history.append])
    with (
        ExitStack() as folders,
        _interrupted_when_ready(request) as ready,
        request.fleet() as fleet,
        ExitStack() as looking,
    ):
        observations = observe_hosts(request, fleet, journal)
        facts = facts_of(observations)
        others = looking.enter_context(request.fleet_of_others())
        refuse_second(request, others, journal)
        with lock(fleet, request.inventory.head.name, spec.name, command, lock_wait):
            status = _find_running(
                request,
                fleet,
                digest(request.inventory, spec, *sources),
                lambda: changes(request, facts, sources, options, redactor),
            )
            if status is not None:
                served = endpoints(status.entrances, status.models)
                return RunResult(None, status, None, None, served, _secured(request), authority=_authority(request))
            plan = plan_and_reserve(request, (fleet, others), observations, sources, options, journal)
            with released_before_start(fleet, plan):
                looking.close()
                folder = folders.enter_context(closing(RunFolder.make(spec.exp_dir, plan.run_id, redactor.redact)))
                folder.write_plan(plan, hides=request.hides_logs)
                with events_written(folder, history, journal):
                    inputs = Inputs(request.inventory, spec, facts, plan.run_id, *sources)
                    kept = kept_files(describe(request, plan, inputs, redactor.redact), journal)
                    run = Run(
                        plan, spec, fleet, folder, redactor, journal, request.secret_hash, request.hides_logs, kept
                    )
                    up = _bring_up(request, run, facts, keep_on_failure)
                    ready.append(up)
        return _result(request, plan, up, folder, history, journal)


@contextmanager
def _interrupted_when_ready(request: Request) -> Iterator[list[BroughtUp]]:
    """Raise InterruptedByUser, which says that the deployment runs, at an interrupt once it is ready."""
    ready: list[BroughtUp] = []
    try:
        yield ready
    except KeyboardInterrupt as error:
        if not ready:
            raise
        remedy = f"    → to stop it: {again(request.inventory, 'stop', request.deployment)}"
        raise InterruptedByUser("interrupted when it was ready already: the deployment runs", remedy) from error


@contextmanager
def events_written(folder: RunFolder, history: Sequence[Event], journal: Journal) -> Iterator[None]:
    """Write the events so far, and those of the block, to the run's events.jsonl."""
    with JsonLines(folder.here / folder.events.name, folder.redact) as lines:
        for event in history:
            lines(event)
        journal.add(lines)
        try:
            yield
        finally:
            if lines.problem:
                journal(Event("run", "note", text=f"{folder.events} is not complete: {lines.problem}"))


def _result(
    request: Request, plan: Plan, up: BroughtUp, folder: RunFolder, history: Sequence[Event], say: Sink
) -> RunResult:
    """Write the report of a run that is ready, and return its result."""
    stages, elapsed = stage_seconds(history), history[-1].at - history[0].at
    report = {
        "verdict": "ready",
        "run_id": plan.run_id,
        "ready_after": dict(up.ready_after),
        "stages": stages,
        "elapsed": elapsed,
    }
    _write_report(folder, report, say)
    entrances = [replace(server, endpoint=up.endpoints.get(server.name, server.endpoint)) for server in plan.entrances]
    models = tuple(dict.fromkeys(instance.served_name for instance in plan.instances))
    served, authority = endpoints(entrances, models), _authority(request)
    return RunResult(plan, None, up, folder, served, _secured(request), stages, elapsed, authority)


def _find_running(
    request: Request, fleet: Fleet, digest: str, differences: Callable[[], Sequence[str]]
) -> Status | None:
    """Return the deployment if the same one is ready already, None where nothing of it runs.

    Raises CheckError else, with the `differences` from what runs.
    """
    spec = request.serve
    current = look(fleet, spec.name, request.inventory.head.name)  # under the lock: it may have come up since the probe
    if current.live_processes == 0:
        return None
    same = same_secrets(current.secret_hash, request.secrets_by_host)
    if current.trusted and current.digest == digest and same and current.state == "ready":
        return current
    raise CheckError.at(spec.name, *_why_not_again(request, current, digest, same, differences))


def _why_not_again(
    request: Request, current: Status, digest: str, secrets_kept: bool, differences: Callable[[], Sequence[str]]
) -> tuple[str, str]:
    """Return why a deployment that runs is not started again, and what to do."""
    name, hosts = request.deployment, request.inventory
    earlier = f"run {current.run_id} of {current.operator}, {counted(current.live_processes, 'process')}"
    anew = f"{again(hosts, 'stop', name)}, then run again; or choose another --name"
    if current.change is not None:
        problem = f"a change of it is not over ({current.change['run_id']} of {current.change['operator']})"
        finish, back = again(hosts, "update", name, "--resume"), again(hosts, "rollback", name)
        return problem, f"to finish it: {finish}; to put it back: {back}"
    if current.digest != digest:
        lines = differences()
        more = [f"and {counted(len(lines) - FEW, 'more change')}"] if len(lines) > FEW else []
        what = f": {'; '.join([*lines[:FEW], *more])}" if lines else ""
        problem = f"it runs already, with another configuration ({earlier}){what}"
    elif current.state == "dead":
        return f"an earlier run is still there and dead ({earlier} left)", anew
    elif not secrets_kept:
        names = ", ".join(sorted({name for named in request.secrets_by_host.values() for name in named}))
        problem = f"it runs already, with other secrets: a value of {names} has changed ({earlier})"
    else:
        return f"it runs already, but is {current.state} ({earlier})", anew
    return problem, anew if current.state == "dead" else f"to change it: {request.again('update')}; or {anew}"


def _bring_up(request: Request, run: Run, facts: Mapping[str, Facts], keep: bool) -> BroughtUp:
    """Call `bring_up`; if it fails, write the run's report and add the command that stops what was kept."""
    try:
        return bring_up(run, facts, keep_on_failure=keep)
    except RunFailedError as error:
        error.take_down = again(request.inventory, "stop", run.plan.deployment)
        report = {"verdict": "failed", "run_id": run.plan.run_id, **failure_json(error.failure)}
        _write_report(run.folder, report, run.say)
        raise


def _write_report(folder: RunFolder, content: Mapping[str, object], say: Sink) -> None:
    """Write report.json; only note a failure (a full disk, for instance), which does not change the run's result."""
    try:
        folder.write_json("report.json", content)
    except InputError as error:
        say(Event("run", "note", text=error.lines[0], lines=error.lines[1:]))


def _secured(request: Request) -> bool:
    hosts = any(KEY_VARIABLE in host.secret_env for host in request.inventory.hosts)
    return hosts or KEY_VARIABLE in request.serve.secret_env or bool(request.gate_keys)


def _authority(request: Request) -> str | None:
    return request.serve.tls.authority if request.serve.tls else None


def endpoints(entrances: Sequence[Any], models: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return each entrance with the model that it serves; the gate serves all of them."""
    return tuple(
        (entrance.endpoint, model)
        for entrance in entrances
        if entrance.endpoint
        for model in (models if entrance.name == GATE else (entrance.served_name,))
    )
