"""Find every problem of a deployment before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.api.planning import Sources, load_sources, observe_hosts
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.checks.engine import NAME as ENGINE_ARGUMENTS
from flagscale_deploy.checks.registry import judge, refuse_unskippable
from flagscale_deploy.checks.types import Context, Link, Parsed, Verdict
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.deploy.engine_arguments import default_cache, parse_engine_arguments
from flagscale_deploy.deploy.network_test import try_links
from flagscale_deploy.deploy.run_folder import new_run_id
from flagscale_deploy.errors import BusyError, CheckError, ConnectError, Fault
from flagscale_deploy.events import Event, Sink, silent
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.claims import Held
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.partial import draft_in_part
from flagscale_deploy.plan.planner import Draft, is_busy
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet

LINK_SECONDS = 30.0


@dataclass(frozen=True)
class CheckReport:
    """Every host's facts and every check's verdicts; `plan` is None where no plan can be carried out."""

    observations: Mapping[str, Observation]
    verdicts: tuple[Verdict, ...] = ()
    plan: Plan | None = None
    taken: bool = False
    """Whether there is no plan only because others have GPUs or ports."""

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Return the verdicts that prevent a run."""
        return tuple(verdict for verdict in self.verdicts if verdict.state == "failed")

    @property
    def exit_code(self) -> int:
        """Return 3 when a host could not be reached, 4 when a check failed, 7 when others have the places, else 0."""
        if any(isinstance(observation.error, ConnectError) for observation in self.observations.values()):
            return ConnectError.exit_code
        refusal = BusyError if self.busy else CheckError
        return refusal.exit_code if self.failed else 0

    @property
    def busy(self) -> bool:
        """Return whether nothing is wrong but that others have GPUs or ports that are needed."""
        return self.taken and {verdict.check for verdict in self.failed} <= {"gpu-busy", "ports"}


def check(
    request: Request, options: PlanOptions = PlanOptions(), *, network: bool = False, say: Sink = silent
) -> CheckReport:
    """Probe every host and judge the facts; start nothing, and report every problem.

    With `network`, bandwidth and latency between hosts are measured. Raises InputError where the configuration itself
    is wrong, or where a check in `options.skip` is unknown or must not be left out.
    """
    refuse_unskippable(options.skip)
    if request.spec is not None:
        refuse_wrong(request.serve)
    sources = load_sources(request, options)
    with request.fleet() as fleet:
        observations = observe_hosts(request, fleet, say)
        return examine(request, fleet, observations, sources, options, network=network, say=say)


def examine(
    request: Request,
    fleet: Fleet,
    observations: Mapping[str, Observation],
    sources: Sources,
    options: PlanOptions,
    *,
    network: bool = False,
    say: Sink = silent,
) -> CheckReport:
    """Judge observations: plan, test what the plan needs of the hosts, and run every check. Raises InputError."""
    facts = {name: observation.facts for name, observation in observations.items() if observation.facts is not None}
    draft = _draft(request, facts, sources, options)
    plan, faults = draft.plan, (*draft.faults, *draft.idle)
    spec = None if ENGINE_ARGUMENTS in options.skip else request.spec
    links, parsed = _test_hosts(spec, fleet, plan, facts, network, say)
    context = Context(request.inventory, request.spec, observations, plan, faults, links, parsed)
    verdicts = judge(context, options.skip)
    return CheckReport(observations, verdicts, None if draft.faults or context.silent else plan, is_busy(draft.faults))


def refuse_failed(report: CheckReport) -> Plan:
    """Return the plan if no check failed. Raises CheckError with every failed check, BusyError where others have it."""
    if report.failed or report.plan is None:
        raise (BusyError if report.busy else CheckError)([fault_of(verdict) for verdict in report.failed])
    return report.plan


def fault_of(verdict: Verdict) -> Fault:
    """Return the fault that a failed verdict is for `run`."""
    expected = f"; expected {verdict.expected}" if verdict.expected else ""
    return Fault(verdict.host or verdict.check, verdict.found + expected, verdict.remedy, verdict.check)


def _draft(request: Request, facts: Mapping[str, Facts], sources: Sources, options: PlanOptions) -> Draft:
    """Return the plan as far as it can be made, and its faults."""
    if request.spec is None:
        return Draft(None)
    skip = {*options.skip, *(["gpu-busy"] if options.force else [])}
    running = options.running
    run_id, held = (running.record["run_id"], running.held) if running else (new_run_id(), Held())
    return draft_in_part(Inputs(request.inventory, request.spec, facts, run_id, *sources, skip=skip, held=held))


def _test_hosts(
    spec: ServeSpec | None, fleet: Fleet, plan: Plan | None, facts: Mapping[str, Facts], network: bool, say: Sink
) -> tuple[tuple[Link, ...] | None, Mapping[str, Parsed] | None]:
    """Test connections between hosts, and have vLLM parse the plan's command lines.

    Without a plan only `network` tests connections. Without `spec` nothing is parsed.
    """
    if plan is None and not network:
        return None, None
    watch = Deadline(LINK_SECONDS)
    say(Event("check", "running", text="connections between hosts"))
    links = try_links(fleet, plan, facts, measure=network, timeout=LINK_SECONDS)
    if plan is None or spec is None:
        say(Event("check", "done", text="connections", elapsed=watch.elapsed))
        return links, None
    say(Event("check", "running", text="engine arguments"))
    parsed = parse_engine_arguments(fleet, spec, plan, facts, default_cache())
    say(Event("check", "done", text="connections, engine arguments", elapsed=watch.elapsed))
    return links, parsed
