"""Plan a run and reserve its GPUs and ports, beside other runs that want the same ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flagscale_deploy.api.checking import CheckReport, examine, fault_of, refuse_failed
from flagscale_deploy.api.planning import Sources, observe_hosts
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.deploy.probe_hosts import facts_of, raise_failures
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.reserve import look_for_rivals, lost, release, reserve
from flagscale_deploy.errors import BusyError, HostError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.run import ReserveReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.units import counted, format_duration
from flagscale_deploy.transport.fleet import Fleet, answers, failures

RACE_SECONDS = 300.0
"""For how long a run plans again while there is room, and other runs are quicker to take it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0
"""Seconds that runs which met back off for at most, after the first meeting and after many."""
LOOK_SECONDS = (5.0, 15.0)
"""Between two looks of a run that waits for room: at random, so that runs which wait do not all look together."""


class Queue:
    """Waits for room: `seconds` in all while others have it, RACE_SECONDS while others are only quicker to take it."""

    def __init__(self, seconds: float, say: Sink) -> None:
        self._waiting, self._racing, self._say = Deadline(seconds), Deadline(max(seconds, RACE_SECONDS)), say
        self._losses = 0

    @property
    def remaining(self) -> float:
        """Return the seconds that are left to wait while others have the room."""
        return self._waiting.remaining

    def wait_for_room(self, busy: BusyError) -> None:
        """Wait until it is time for another look. Raises the error where no time is left."""
        if self._waiting.expired:
            raise busy
        left = format_duration(self._waiting.remaining)
        self._say(Event("plan", "note", text=f"{busy.faults[0].problem}; waiting for room, for up to {left}"))
        time.sleep(min(random.uniform(*LOOK_SECONDS), self._waiting.remaining))

    def back_off(self, lost: BusyError) -> None:
        """Wait for a random time, longer after each loss. Raises the error where runs have met for too long."""
        if self._racing.expired:
            raise lost
        for fault in lost.faults:
            self._say(Event("plan", "note", fault.host, f"{fault.problem}; planning again"))
        time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._losses)))
        self._losses += 1


def plan_and_reserve(
    request: Request,
    fleets: tuple[Fleet, Fleet],
    observations: Mapping[str, Observation],
    sources: Sources,
    options: PlanOptions,
    say: Sink,
) -> Plan:
    """Return a plan that passed the checks, whose GPUs and ports are reserved, and whose name no other run has.

    `fleets` are the hosts to plan for and those that `--limit` leaves out. Where another run took some of it
    meanwhile, the hosts are probed and planned again as long as there is room; and for `options.wait` where there is
    none. Raises CheckError with what prevents the run, BusyError where only others do, HostsFailedError.
    """
    fleet, others = fleets
    queue, first = Queue(options.wait, say), True
    while True:
        if not first:
            observations = observe_hosts(request, fleet, say)
        facts = facts_of(observations)
        report = examine(request, fleet, observations, sources, options, say=say)
        for verdict in report.verdicts:
            if verdict.state == "warning" and first and report.plan is not None:
                say(Event("check", "note", verdict.host, f"{verdict.check}: {verdict.found} → {verdict.remedy}"))
        first = False
        try:
            plan = refuse_failed(report)
        except BusyError as busy:
            queue.wait_for_room(busy)
            continue
        with released_before_start(fleet, plan):
            replies = _reserve(request, fleet, plan, facts)
            if not failures(replies):
                rest = [name for name in fleet.hosts if name not in replies]
                replies |= look_for_rivals(fleet, plan, rest) | look_for_rivals(others, plan, others.hosts)
            if not failures(replies) and not any(reply["taken"] for reply in answers(replies).values()):
                text = f"{counted(len(plan.instances), 'instance')} on {counted(len(plan.hosts), 'host')}"
                say(Event("plan", "done", text=text))
                return plan
        release(fleet, plan)
        raise_failures(replies)
        queue.back_off(BusyError(lost(replies)))


def check_until_room(check: Callable[[], CheckReport], wait: float, say: Sink) -> tuple[CheckReport, float]:
    """Return the report of the first check that finds room, or the last one within `wait` seconds; and those left."""
    queue = Queue(wait, say)
    while (report := check()).busy:
        try:
            queue.wait_for_room(BusyError([fault_of(verdict) for verdict in report.failed]))
        except BusyError:
            break
    return report, queue.remaining


@contextmanager
def released_before_start(fleet: Fleet, plan: Plan) -> Iterator[None]:
    """Release what was reserved for the plan if the block fails before it starts anything."""
    try:
        yield
    except RunFailedError:
        raise  # what was started has been stopped, or is kept
    except BaseException:
        release(fleet, plan)
        raise


def _reserve(
    request: Request, fleet: Fleet, plan: Plan, facts: Mapping[str, Facts]
) -> dict[str, ReserveReply | HostError]:
    """Reserve the plan's GPUs and ports and return the hosts' replies."""
    secret = request.serve.secret_env
    names = {name: tuple({**secret, **fleet.hosts[name].secret_env}) for name in plan.hosts}
    records = {name: record_of(plan, name, facts, names[name], request.secret_hash) for name in plan.hosts}
    return reserve(fleet, plan, records)
