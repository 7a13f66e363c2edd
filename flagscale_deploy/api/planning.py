"""What would be done; starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flagscale_deploy.api.request import Request
from flagscale_deploy.config.program_files import ProgramFiles, load_program
from flagscale_deploy.deploy.probe import facts_of, observe
from flagscale_deploy.deploy.run_folder import new_run_id
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan as make_plan
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.rendering.render import Templates, load_templates
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet

Sources = tuple[Templates, ProgramFiles | None]
"""Script templates, and the files of a program of the user's own."""


def load_sources(request: Request, templates: Path | None) -> Sources:
    """Read what a plan is made from beside the configuration. Raises InputError."""
    return load_templates(templates), load_program(request.spec) if request.spec is not None else None


def plan(
    request: Request, *, offline: bool = False, force: bool = False, templates: Path | None = None, say: Sink = silent
) -> Plan:
    """What `run` would do. Raises InputError (offline), CheckError, HostsUnreachableError."""
    refuse_wrong(request.serve)
    sources, program = load_sources(request, templates)
    facts: Mapping[str, Facts] = {}
    if not offline:
        with request.fleet() as fleet:
            facts = facts_of(observe_hosts(request, fleet, say))
    return make_plan(request.inventory, request.serve, facts, new_run_id(), sources, program, force=force)


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
