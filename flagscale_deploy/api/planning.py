"""What would be done, and what stands in its way; starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.deadline import Deadline
from flagscale_deploy.errors import CheckError, ConnectError, Fault, FaultsError
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.folder import new_run_id
from flagscale_deploy.observation import Facts, Observation
from flagscale_deploy.observe import facts_of, observe
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.plan.planner import plan as make_plan
from flagscale_deploy.plan.software import software_faults
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.program import load_program
from flagscale_deploy.render import load_templates
from flagscale_deploy.request import Request
from flagscale_deploy.transport.fleet import Fleet


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
    refuse_wrong(request.serve)
    sources, program = load_templates(templates), load_program(request.serve)
    facts: Mapping[str, Facts] = {}
    if not offline:
        with request.fleet() as fleet:
            facts = facts_of(observe_hosts(request, fleet, say))
    return make_plan(request.inventory, request.serve, facts, new_run_id(), sources, program, force=force)


def check(request: Request, *, force: bool = False, templates: Path | None = None, say: Sink = silent) -> CheckReport:
    """Probe every host and, with a configuration, try to plan it; starts nothing and keeps every problem.

    Raises InputError where the configuration is wrong by itself.
    """
    if request.spec is not None:
        refuse_wrong(request.spec)
    program = load_program(request.spec) if request.spec is not None else None
    sources = load_templates(templates)
    with request.fleet() as fleet:
        observations = observe_hosts(request, fleet, say)
    faults = [Fault(name, each.error.problem, each.error.remedy) for name, each in observations.items() if each.error]
    made = None
    facts = {name: each.facts for name, each in observations.items() if each.facts is not None}
    if faults and request.spec is not None:  # no plan without all hosts; what can be said of the others is said
        reached = [host for host in request.inventory.hosts if host.name in facts]
        plan_networks(reached, facts, faults)
        faults += software_faults(facts, facts if request.spec.ray.mode == "on" else (), (), ())
    elif request.spec is not None:
        try:
            made = make_plan(request.inventory, request.spec, facts, new_run_id(), sources, program, force=force)
        except FaultsError as error:
            faults += error.faults
    faults += [
        Fault(name, f"nvidia-smi fails: {each.facts.gpu_error}", "repair the NVIDIA driver")
        for name, each in observations.items()
        if each.facts is not None and each.facts.gpu_error
    ]
    return CheckReport(observations, tuple(dict.fromkeys(faults)), made)


def observe_hosts(request: Request, fleet: Fleet, say: Sink) -> dict[str, Observation]:
    """Probe every host, and say what was found."""
    watch = Deadline(request.timeouts.probe)
    say(Event("probe", "running", text=f"{len(fleet.hosts)} hosts"))
    observations = observe(fleet, request.spec, timeout=request.timeouts.probe)
    for name, each in observations.items():
        if each.error is not None:
            say(Event("probe", "failed", name, each.error.problem))
        elif each.facts is not None:
            say(Event("probe", "done", name, describe(each.facts)))
    say(Event("probe", "done", text=f"{len(fleet.hosts)} hosts", elapsed=watch.elapsed))
    return observations


def describe(facts: Facts) -> str:
    """A host in a line."""
    gpus = f"{len(facts.gpus)} × {facts.gpus[0].name}" if facts.gpus else "no GPU"
    versions = ", ".join(f"{name} {found or 'missing'}" for name, found in (("Ray", facts.ray), ("vLLM", facts.vllm)))
    return f"{gpus}, Python {facts.python or facts.probe_python}, {versions}"
