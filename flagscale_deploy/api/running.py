"""Bringing a deployment up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flagscale_deploy.api.checking import examine, refuse_failed
from flagscale_deploy.api.planning import Sources, load_sources, observe_hosts
from flagscale_deploy.api.request import Request
from flagscale_deploy.checks.registry import refuse_unskippable
from flagscale_deploy.deploy.bring_up import BroughtUp, RunFailedError, bring_up, failure_json
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS, lock
from flagscale_deploy.deploy.probe import facts_of, raise_failures
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.reserve import lost, release, reserve
from flagscale_deploy.deploy.run_folder import RunFolder, runs
from flagscale_deploy.deploy.status import Status, look
from flagscale_deploy.errors import CheckError, InputError
from flagscale_deploy.events import Event, Journal, JsonLines, Sink, silent, stage_seconds
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import digest
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.transport.fleet import Fleet, failures

PLANS = 3
"""How often a plan is made anew because another run took GPUs or ports meanwhile."""


@dataclass(frozen=True)
class RunResult:
    """A deployment that answers. `up` is None where the same one ran already."""

    plan: Plan | None
    status: Status | None
    up: BroughtUp | None
    folder: RunFolder | None
    endpoints: tuple[tuple[str, str], ...]
    """(endpoint, served model name) of every instance that has an endpoint; the name is "" for a program."""
    secured: bool
    """Whether clients need an API key."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each stage took; some ran at the same time."""
    elapsed: float = 0.0
    authority: str | None = None
    """A file here that clients of an `https` endpoint may trust its certificate by, where one is known."""


def run(
    request: Request,
    *,
    force: bool = False,
    templates: Path | None = None,
    keep_on_failure: bool = False,
    lock_wait: float = LOCK_WAIT_SECONDS,
    skip: Collection[str] = (),
    redactor: Redactor | None = None,
    say: Sink = silent,
    what: str = "run",
) -> RunResult:
    """Bring the deployment up, or find that the very same one runs already. `skip` names checks to leave out; `what`
    is told to whom the lock keeps out.

    Raises InputError, HostsUnreachableError, CheckError, LockedError with nothing started; RunFailedError afterwards.
    """
    spec, redactor = request.serve, redactor or Redactor()
    for secret in request.secrets:
        redactor.add(secret)
    refuse_unskippable(skip)
    refuse_wrong(spec)
    sources = load_sources(request, templates)
    authority = spec.tls.authority if spec.tls else None
    runs(spec.exp_dir)  # before any host is contacted
    history: list[Event] = []
    journal = Journal([say, history.append])
    with request.fleet() as fleet:
        observations = observe_hosts(request, fleet, journal)
        facts = facts_of(observations)
        with lock(fleet, request.inventory.head.name, spec.name, what, lock_wait):
            present = _present(request, fleet, digest(request.inventory, spec, *sources))
            if present is not None:
                entrances = _endpoints(present.entrances)
                return RunResult(None, present, None, None, entrances, _secured(request), authority=authority)
            how: dict[str, Any] = {"force": force, "skip": skip}
            made = _plan_and_reserve(request, fleet, observations, sources, how, journal)
            try:
                folder = RunFolder.make(spec.exp_dir, made.run_id, redactor.redact)
                folder.write_plan(made)
                with JsonLines(folder.events, redactor.redact) as lines:
                    for event in history:
                        lines(event)
                    journal.add(lines)
                    try:
                        up = _bring_up(request, made, fleet, facts, folder, redactor, journal, keep_on_failure)
                    finally:
                        if lines.problem:
                            journal(Event("run", "note", text=f"{folder.events} is not complete: {lines.problem}"))
            except RunFailedError:
                raise
            except BaseException:
                release(fleet, made)
                raise
    stages, elapsed = stage_seconds(history), history[-1].at - history[0].at
    ended = {
        "verdict": "ready",
        "run_id": made.run_id,
        "ready_after": dict(up.ready_after),
        "stages": stages,
        "elapsed": elapsed,
    }
    _write_report(folder, ended, journal)
    found = [replace(each, endpoint=up.endpoints.get(each.name, each.endpoint)) for each in made.entrances]
    return RunResult(made, None, up, folder, _endpoints(found), _secured(request), stages, elapsed, authority)


def _present(request: Request, fleet: Fleet, wanted: str) -> Status | None:
    """The deployment if the very same one answers already, None where nothing of it runs; else CheckError."""
    spec = request.serve
    found = look(fleet, spec.name)  # under the lock: it may have come up since the probe
    if found.live_processes == 0:
        return None
    if found.digest == wanted and found.state == "ready":
        return found
    how = "with another configuration" if found.digest != wanted else f"but is {found.state}"
    raise CheckError.at(
        spec.name,
        f"it runs already, {how} (run {found.run_id} of {found.operator}, {found.live_processes} processes)",
        f"{again(request.inventory, 'stop', spec.name)}, then run again; or choose another --name",
    )


def _plan_and_reserve(
    request: Request,
    fleet: Fleet,
    observations: Mapping[str, Observation],
    sources: Sources,
    how: Mapping[str, Any],
    say: Sink,
) -> Plan:
    """The plan that checks let through, with its GPUs and ports taken. Where another run was quicker: look, plan again.

    Raises CheckError with what stands in the way, HostsFailedError.
    """
    for attempt in range(PLANS):
        if attempt:
            observations = observe_hosts(request, fleet, say)
            facts_of(observations)
        report = examine(request, fleet, observations, sources, **how, say=say)
        made = refuse_failed(report)
        for each in report.verdicts:
            if each.state == "warning" and not attempt:
                say(Event("check", "note", each.host, f"{each.check}: {each.found} → {each.remedy}"))
        taken = _reserve(request, fleet, made, facts_of(observations))
        faults = lost(taken)
        if not faults and not failures(taken):
            say(Event("plan", "done", text=f"{len(made.instances)} instances on {len(made.hosts)} hosts"))
            return made
        release(fleet, made)
        raise_failures(taken)
        for fault in faults:
            say(Event("plan", "note", fault.host, f"{fault.problem}: looking again"))
    raise CheckError(faults)


def _reserve(request: Request, fleet: Fleet, made: Plan, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """What hosts say to the plan's claims. Whoever interrupts it leaves none behind."""
    secret = request.serve.secret_env
    names = {name: tuple({**secret, **fleet.hosts[name].secret_env}) for name in made.hosts}
    try:
        return reserve(fleet, made, {name: record_of(made, name, facts, names[name]) for name in made.hosts})
    except BaseException:
        release(fleet, made)
        raise


def _bring_up(
    request: Request,
    made: Plan,
    fleet: Fleet,
    facts: Mapping[str, Facts],
    folder: RunFolder,
    redactor: Redactor,
    say: Sink,
    keep: bool,
) -> BroughtUp:
    """`bring_up`, with a report in the run's folder also where it fails, and the command that ends what was kept."""
    try:
        return bring_up(made, request.serve, fleet, facts, folder, redactor, say, keep_on_failure=keep)
    except RunFailedError as error:
        error.take_down = again(request.inventory, "stop", made.deployment)
        _write_report(folder, {"verdict": "failed", "run_id": made.run_id, **failure_json(error.failure)}, say)
        raise


def _write_report(folder: RunFolder, content: Mapping[str, Any], say: Sink) -> None:
    """How the run ended stays true where it can't be written down, on a disk that is full, say."""
    try:
        folder.write_json("report.json", content)
    except InputError as error:
        say(Event("run", "note", text=str(error)))


def _secured(request: Request) -> bool:
    hosts = any("VLLM_API_KEY" in host.secret_env for host in request.inventory.hosts)
    return hosts or "VLLM_API_KEY" in request.serve.secret_env


def _endpoints(instances: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((each.endpoint, each.served_name) for each in instances if each.endpoint)
