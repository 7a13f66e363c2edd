"""Plan a deployment; start nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.api.describing import compare
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.config.program_files import ProgramFiles, load_program
from flagscale_deploy.deploy.probe_hosts import facts_of, observe
from flagscale_deploy.deploy.run_folder import new_run_id
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.claims import Held
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import draft
from flagscale_deploy.plan.planner import plan as make_plan
from flagscale_deploy.plan.running import find_running
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.rendering.render import Templates, load_templates
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import counted
from flagscale_deploy.transport.fleet import Fleet

Sources = tuple[Templates, ProgramFiles | None]
"""Script templates, and the files of a user's own program."""


def load_sources(request: Request, options: PlanOptions) -> Sources:
    """Read the templates and program files that a plan is made from. Raises InputError."""
    return load_templates(options.templates), load_program(request.spec) if request.spec is not None else None


@dataclass(frozen=True)
class Planned:
    """What `run` would do, and how that differs from what runs of the deployment now; None where nothing does."""

    plan: Plan
    difference: Difference | None = None


def plan(request: Request, options: PlanOptions = PlanOptions(), *, offline: bool = False, say: Sink = silent) -> Plan:
    """Return what `run` would do; `offline` contacts no host and skips the checks of hosts.

    Raises InputError, CheckError, HostsUnreachableError.
    """
    return plan_change(request, options, offline=offline, say=say).plan


def plan_change(
    request: Request,
    options: PlanOptions = PlanOptions(),
    *,
    offline: bool = False,
    redactor: Redactor | None = None,
    say: Sink = silent,
) -> Planned:
    """Return what `plan` does, and what would change about what runs now, which the probe finds."""
    refuse_wrong(request.serve)
    templates, program = load_sources(request, options)
    facts: Mapping[str, Facts] = {}
    if not offline:
        with request.fleet() as fleet:
            facts = facts_of(observe_hosts(request, fleet, say))
    skip = ["gpu-busy"] if options.force else []
    running = find_running(facts, request.deployment, request.inventory.head.name)
    held = running.held if running else Held()
    inputs = Inputs(request.inventory, request.serve, facts, new_run_id(), templates, program, skip, held)
    made = make_plan(inputs)
    if running is None:
        return Planned(made)
    redactor = redactor or request.redactor
    redactor.add(*request.secrets)
    return Planned(made, compare(request, running, made, inputs, redactor.redact))


def changes(
    request: Request, facts: Mapping[str, Facts], sources: Sources, options: PlanOptions, redactor: Redactor
) -> tuple[str, ...]:
    """Return what would change about what runs, a line each; none where that cannot be told."""
    running = find_running(facts, request.deployment, request.inventory.head.name)
    if running is None:
        return ()
    skip = {*options.skip, *(["gpu-busy"] if options.force else [])}
    inputs = Inputs(request.inventory, request.serve, facts, new_run_id(), *sources, skip, running.held)
    made = draft(inputs).plan
    return compare(request, running, made, inputs, redactor.redact).lines if made is not None else ()


def observe_hosts(request: Request, fleet: Fleet, say: Sink) -> dict[str, Observation]:
    """Probe every host and report its GPUs and versions, or why it cannot be probed."""
    watch = Deadline(request.timeouts.probe)
    say(Event("probe", "running", text=counted(len(fleet.hosts), "host")))
    observations = observe(fleet, request.spec, timeout=request.timeouts.probe)
    for name, observation in observations.items():
        if observation.error is not None:
            say(Event("probe", "failed", name, observation.error.problem))
        elif observation.facts is not None:
            say(Event("probe", "done", name, describe(observation.facts)))
    say(Event("probe", "done", text=counted(len(fleet.hosts), "host"), elapsed=watch.elapsed))
    return observations


def describe(facts: Facts) -> str:
    """Describe a host in one line."""
    gpus = f"{len(facts.gpus)} × {facts.gpus[0].name}" if facts.gpus else "no GPU"
    versions = ", ".join(
        f"{name} {version or 'missing'}" for name, version in (("Ray", facts.ray), ("vLLM", facts.vllm))
    )
    return f"{gpus}, Python {facts.python or facts.probe_python}, {versions}"
