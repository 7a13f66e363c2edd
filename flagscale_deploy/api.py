"""One function per command, for programs as for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flagscale_deploy import logs as log_files
from flagscale_deploy import shell
from flagscale_deploy.deploy import BroughtUp, RunFailedError, bring_up, failure_json
from flagscale_deploy.errors import CheckError, ConnectError, Fault, FaultsError, HostError, InputError, RemoteError
from flagscale_deploy.events import Event, Journal, JsonLines, Sink, silent
from flagscale_deploy.folder import RunFolder, new_run_id
from flagscale_deploy.observation import Facts, Observation
from flagscale_deploy.observe import facts_of, observe, raise_failures
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import digest
from flagscale_deploy.plan.planner import plan as make_plan
from flagscale_deploy.records import LOCK_WAIT_SECONDS, lock
from flagscale_deploy.render import Templates, load_templates
from flagscale_deploy.request import Options, Request, load_request
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.status import Status, look
from flagscale_deploy.stop import StopReport, remove_leftovers, stop_deployment
from flagscale_deploy.transport.base import Outcome
from flagscale_deploy.transport.base import run as run_command
from flagscale_deploy.transport.fleet import Fleet, answers
from flagscale_deploy.transport.program import call as call_program

__all__ = [
    "CheckReport",
    "Options",
    "Request",
    "RunResult",
    "call",
    "check",
    "cleanup",
    "collect",
    "execute_everywhere",
    "follow",
    "load_request",
    "plan",
    "run",
    "status",
    "stop",
]

CALL_SECONDS = 600.0


@dataclass(frozen=True)
class RunResult:
    """A deployment that answers. `up` is None where the same one ran already."""

    plan: Plan | None
    status: Status | None
    up: BroughtUp | None
    folder: RunFolder | None
    endpoints: tuple[tuple[str, str], ...]
    """(endpoint, served model name) of every instance."""
    secured: bool
    """Whether clients need an API key."""


@dataclass(frozen=True)
class CheckReport:
    """What every host was found to be, and everything that stands in the way."""

    observations: Mapping[str, Observation]
    faults: tuple[Fault, ...] = ()
    plan: Plan | None = None

    @property
    def exit_code(self) -> int:
        """0, 3 when a host could not be reached, 4 when something stands in the way."""
        if any(isinstance(each.error, ConnectError) for each in self.observations.values()):
            return ConnectError.exit_code
        return CheckError.exit_code if self.faults else 0


def plan(
    request: Request, *, offline: bool = False, force: bool = False, templates: Path | None = None, say: Sink = silent
) -> Plan:
    """What `run` would do. Raises InputError (offline), CheckError, HostsUnreachableError."""
    sources = load_templates(templates)
    facts: Mapping[str, Facts] = {}
    if not offline:
        with request.fleet() as fleet:
            facts = facts_of(_observe(request, fleet, say))
    return make_plan(request.inventory, request.serve, facts, new_run_id(), sources, force=force)


def check(request: Request, *, force: bool = False, templates: Path | None = None, say: Sink = silent) -> CheckReport:
    """Probe every host and, with a configuration, try to plan it; starts nothing and keeps every problem."""
    with request.fleet() as fleet:
        observations = _observe(request, fleet, say)
    faults = [Fault(name, each.error.problem, each.error.remedy) for name, each in observations.items() if each.error]
    made = None
    if not faults and request.spec is not None:
        facts = {name: each.facts for name, each in observations.items() if each.facts is not None}
        try:
            made = make_plan(
                request.inventory, request.spec, facts, new_run_id(), load_templates(templates), force=force
            )
        except FaultsError as error:
            faults += error.faults
    faults += [
        Fault(name, f"nvidia-smi fails: {each.facts.gpu_error}", "repair the NVIDIA driver")
        for name, each in observations.items()
        if each.facts is not None and each.facts.gpu_error
    ]
    return CheckReport(observations, tuple(dict.fromkeys(faults)), made)


def run(
    request: Request,
    *,
    force: bool = False,
    templates: Path | None = None,
    keep_on_failure: bool = False,
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink = silent,
) -> RunResult:
    """Bring the deployment up, or find that the very same one runs already.

    Raises InputError, HostsUnreachableError, CheckError, LockedError with nothing started; RunFailedError afterwards.
    """
    spec, redactor = request.serve, redactor or Redactor()
    for secret in spec.secret_env.values():
        redactor.add(secret)
    sources = load_templates(templates)
    with request.fleet() as fleet:
        facts = facts_of(_observe(request, fleet, say))
        with lock(fleet, request.inventory.head.name, spec.name, "run", lock_wait):
            present = _present(request, fleet, facts, sources)
            if present is not None:
                return RunResult(None, present, None, None, _endpoints(present.instances), bool(spec.secret_env))
            made = make_plan(request.inventory, spec, facts, new_run_id(), sources, force=force)
            say(Event("plan", "done", text=f"{len(made.instances)} instances on {len(made.hosts)} hosts"))
            return _run(made, request, fleet, facts, redactor, say, keep_on_failure)


def status(request: Request, *, ask: bool = True) -> Status:
    """What of the deployment is really there; hosts that can't be reached are UNKNOWN in it."""
    with request.fleet() as fleet:
        return look(fleet, request.deployment, ask=ask)


def stop(request: Request, *, lock_wait: float = LOCK_WAIT_SECONDS, say: Sink = silent) -> StopReport:
    """End the deployment on every host that can be reached, and verify it. Raises LockedError."""
    with request.fleet() as fleet:
        with _lock_if_reachable(request, fleet, "stop", lock_wait, say):
            return stop_deployment(fleet, request.deployment, request.timeouts.stop, say)


def cleanup(request: Request, *, lock_wait: float = LOCK_WAIT_SECONDS, say: Sink = silent) -> StopReport:
    """Stop, then remove what is left on the hosts where nothing runs any more. Raises LockedError."""
    with request.fleet() as fleet:
        with _lock_if_reachable(request, fleet, "cleanup", lock_wait, say):
            report = stop_deployment(fleet, request.deployment, request.timeouts.stop, say)
        clean = [host.host for host in report.hosts if host.state in ("stopped", "nothing")]
        removed = remove_leftovers(fleet, request.deployment, clean, say)
        raise_failures(removed)
        return StopReport(report.hosts, answers(removed))


def collect(request: Request, into: Path) -> dict[str, log_files.Collected | HostError]:
    """Every log of the deployment into `<into>/<host>/`."""
    with request.fleet() as fleet:
        return log_files.collect_logs(fleet, request.deployment, into)


def follow(
    request: Request, show: log_files.Line, *, tail: int | None, follow: bool, kinds: Sequence[str] | None
) -> dict[str, int | HostError]:
    """Hand the last lines of the deployment's logs to `show`, then new ones."""
    with request.fleet() as fleet:
        return log_files.read_logs(fleet, request.deployment, show, tail=tail, follow=follow, kinds=kinds)


def call(request: Request, messages: Sequence[Mapping[str, str]], **parameters: Any) -> dict[str, Any]:
    """Send a chat completion to the deployment's first living instance, from its own driver host; the server's answer.

    Asking on the host itself works where the port is not reachable from here, and the API key stays on the host.
    """
    with request.fleet() as fleet:
        found = look(fleet, request.deployment, ask=False)
        raise_unknown(found)
        if not found.instances:
            raise InputError.at(
                request.deployment, "no such deployment on these hosts", "see `status`; start it with `run`"
            )
        args = {"deployment": request.deployment, "messages": list(messages), "parameters": parameters}
        problems = []
        for instance in found.instances:
            connection = fleet.connection(instance.driver)
            answer = call_program(
                connection,
                "ask",
                args | {"host": instance.driver, "instance": [instance.model, instance.replica]},
                timeout=CALL_SECONDS,
            )
            if "answer" in answer:
                return dict(answer["answer"])
            problems.append(
                Fault(
                    instance.driver,
                    f"{instance.model}/{instance.replica}: {answer['problem']}",
                    "see `status` and `logs`",
                )
            )
        raise RemoteError(problems[0].where, problems[0].problem, problems[0].remedy)


def execute_everywhere(request: Request, words: Sequence[str], *, timeout: float) -> dict[str, Outcome | HostError]:
    """Run a command on every host; one word is shell, several are a program and its arguments."""
    text = words[0] if len(words) == 1 else shell.join(words)
    with request.fleet() as fleet:
        return fleet.map(
            lambda host: run_command(
                fleet.connection(host.name), _inside(host.container, text), timeout=timeout, cancelled=fleet.cancelled
            )
        )


def raise_unknown(found: Status) -> None:
    """Raise what kept hosts from answering, if nothing at all is known of the deployment."""
    unknown = [ConnectError(host.host, host.problem) for host in found.hosts if host.state == "UNKNOWN"]
    if unknown and not found.instances:
        raise_failures({error.host: error for error in unknown})


def _inside(container: str | None, text: str) -> str:
    return shell.join(["docker", "exec", "-i", container, "sh", "-c", text]) if container else text


def _observe(request: Request, fleet: Fleet, say: Sink) -> dict[str, Observation]:
    say(Event("probe", "running", text=f"{len(fleet.hosts)} hosts"))
    observations = observe(fleet, request.spec, timeout=request.timeouts.probe)
    for name, each in observations.items():
        if each.error is not None:
            say(Event("probe", "failed", name, each.error.problem))
        elif each.facts is not None:
            say(Event("probe", "done", name, describe(each.facts)))
    return observations


def describe(facts: Facts) -> str:
    """A host in a line."""
    gpus = f"{len(facts.gpus)} × {facts.gpus[0].name}" if facts.gpus else "no GPU"
    versions = ", ".join(f"{name} {found or 'missing'}" for name, found in (("Ray", facts.ray), ("vLLM", facts.vllm)))
    return f"{gpus}, Python {facts.python or facts.probe_python}, {versions}"


def _present(request: Request, fleet: Fleet, facts: Mapping[str, Facts], sources: Templates) -> Status | None:
    """The deployment if the very same one answers already, None where nothing of it runs; else CheckError."""
    spec = request.serve
    if not any(record.get("deployment") == spec.name for each in facts.values() for record in each.deployments):
        return None
    found = look(fleet, spec.name)
    if found.live_processes == 0:
        return None
    if found.digest == digest(request.inventory, spec, sources) and found.state == "ready":
        return found
    how = (
        "with another configuration"
        if found.digest != digest(request.inventory, spec, sources)
        else f"but is {found.state}"
    )
    raise CheckError.at(
        spec.name,
        f"it runs already, {how} (run {found.run_id} of {found.operator}, {found.live_processes} processes)",
        f"flagscale-deploy stop --name {spec.name}, then run again; or choose another --name",
    )


def _run(
    made: Plan, request: Request, fleet: Fleet, facts: Mapping[str, Facts], redactor: Redactor, say: Sink, keep: bool
) -> RunResult:
    spec = request.serve
    folder = RunFolder.make(spec.exp_dir, made.run_id)
    folder.write_plan(made)
    lines = JsonLines(folder.events, redactor.redact)
    try:
        up = bring_up(made, spec, fleet, facts, folder, redactor, Journal([say, lines]), keep_on_failure=keep)
    except RunFailedError as error:
        folder.write_json("report.json", {"verdict": "failed", "run_id": made.run_id, **failure_json(error.failure)})
        raise
    finally:
        lines.close()
    report = {"verdict": "ready", "run_id": made.run_id, "ready_after": dict(up.ready_after), "elapsed": up.elapsed}
    folder.write_json("report.json", report)
    return RunResult(made, None, up, folder, _endpoints(made.instances), "VLLM_API_KEY" in spec.secret_env)


def _endpoints(instances: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((each.endpoint, each.served_name) for each in instances)


def _lock_if_reachable(request: Request, fleet: Fleet, what: str, wait: float, say: Sink) -> Any:
    """The lock; nothing where the head can't be reached: the other hosts can still be freed."""
    head = request.inventory.head.name
    try:
        fleet.connection(head)
    except ConnectError as error:
        say(Event(what, "note", head, f"no lock, because the head cannot be reached: {error.problem}"))
        return nullcontext()
    return lock(fleet, head, request.deployment, what, wait)
