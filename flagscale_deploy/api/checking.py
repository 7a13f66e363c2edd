"""Everything that stands in the way of a deployment, found before anything is started."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.api.planning import Sources, load_sources, observe_hosts
from flagscale_deploy.api.request import Request
from flagscale_deploy.checks.model import Link, Parsed, Scene, Verdict
from flagscale_deploy.checks.registry import judge, refuse_unskippable
from flagscale_deploy.deploy.engine_arguments import default_cache, parse_engine_arguments
from flagscale_deploy.deploy.network_test import try_links
from flagscale_deploy.deploy.run_folder import new_run_id
from flagscale_deploy.errors import CheckError, ConnectError, Fault
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.partial import draft_in_part
from flagscale_deploy.plan.planner import Draft
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet

LINK_SECONDS = 30.0


@dataclass(frozen=True)
class CheckReport:
    """What every host was found to be, and what each check says of it. `plan` is None where none can be carried out."""

    observations: Mapping[str, Observation]
    verdicts: tuple[Verdict, ...] = ()
    plan: Plan | None = None

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts that stand in the way."""
        return tuple(each for each in self.verdicts if each.state == "failed")

    @property
    def exit_code(self) -> int:
        """0, 3 when a host could not be reached, 4 when something stands in the way."""
        if any(isinstance(each.error, ConnectError) for each in self.observations.values()):
            return ConnectError.exit_code
        return CheckError.exit_code if self.failed else 0


def check(
    request: Request,
    *,
    force: bool = False,
    network: bool = False,
    skip: Collection[str] = (),
    templates: Path | None = None,
    say: Sink = silent,
) -> CheckReport:
    """Look at every host and judge what was seen; starts nothing and keeps every problem.

    With `network`, bandwidth and latency between hosts are measured. `skip` names checks to leave out. Raises
    InputError where the configuration is wrong by itself, or a check in `skip` is unknown or can't be left out.
    """
    refuse_unskippable(skip)
    if request.spec is not None:
        refuse_wrong(request.spec)
    sources = load_sources(request, templates)
    with request.fleet() as fleet:
        observations = observe_hosts(request, fleet, say)
        return examine(request, fleet, observations, sources, force=force, network=network, skip=skip, say=say)


def examine(
    request: Request,
    fleet: Fleet,
    observations: Mapping[str, Observation],
    sources: Sources,
    *,
    force: bool = False,
    network: bool = False,
    skip: Collection[str] = (),
    say: Sink = silent,
) -> CheckReport:
    """Judge observations: plan, try what the plan needs of the hosts, and ask every check. Raises InputError."""
    facts = {name: each.facts for name, each in observations.items() if each.facts is not None}
    found = _try_plan(request, facts, sources, force, skip)
    made, faults = found.plan, (*found.faults, *found.idle)
    links, parsed = _try_out(request, fleet, made, facts, network, say)
    scene = Scene(request.inventory, request.spec, observations, made, faults, links, parsed)
    return CheckReport(observations, judge(scene, skip), None if found.faults or scene.silent else made)


def refuse_failed(report: CheckReport) -> Plan:
    """The plan that checks let through. Raises CheckError with everything that stands in its way."""
    if report.failed or report.plan is None:
        raise CheckError([fault_of(each) for each in report.failed])
    return report.plan


def fault_of(verdict: Verdict) -> Fault:
    """A verdict as the error that it is for `run`."""
    expected = f"; expected {verdict.expected}" if verdict.expected else ""
    return Fault(verdict.host or verdict.check, verdict.found + expected, verdict.remedy, verdict.check)


def _try_plan(
    request: Request,
    facts: Mapping[str, Facts],
    sources: Sources,
    force: bool,
    skip: Collection[str],
) -> Draft:
    """The plan, and what is wrong with it."""
    if request.spec is None:
        return Draft(None)
    return draft_in_part(request.inventory, request.spec, facts, new_run_id(), *sources, force=force, skip=skip)


def _try_out(
    request: Request, fleet: Fleet, made: Plan | None, facts: Mapping[str, Facts], network: bool, say: Sink
) -> tuple[tuple[Link, ...] | None, Mapping[str, Parsed] | None]:
    """Try connections between hosts, and have vLLM read its command lines; without a plan what was asked for only."""
    if made is None and not network:
        return None, None
    watch = Deadline(LINK_SECONDS)
    say(Event("check", "running", text="connections between hosts"))
    links = try_links(fleet, made, facts, measure=network, timeout=LINK_SECONDS)
    if made is None or request.spec is None:
        say(Event("check", "done", text="connections", elapsed=watch.elapsed))
        return links, None
    say(Event("check", "running", text="engine arguments"))
    parsed = parse_engine_arguments(fleet, request.spec, made, facts, default_cache())
    say(Event("check", "done", text="connections, engine arguments", elapsed=watch.elapsed))
    return links, parsed
