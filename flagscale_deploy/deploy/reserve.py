"""Reserve a run's GPUs and ports on all hosts before anything starts, so that simultaneous runs get different ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flagscale_deploy.errors import CheckError, Fault, HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.run import RESERVE, ReserveArguments, ReserveReply
from flagscale_deploy.support.interrupts import held_back
from flagscale_deploy.transport.fleet import Fleet, answers

SECONDS = 60.0


def reserve(fleet: Fleet, plan: Plan, records: Mapping[str, Record]) -> dict[str, ReserveReply | HostError]:
    """Reserve the plan's GPUs and ports, and return each host's reply; its `taken` lists what other runs have."""

    def args(host: Host) -> ReserveArguments:
        return {**_run(plan, host), "record": records[host.name], "exclusive": list(plan.exclusive)}

    return fleet.call(RESERVE, args, timeout=SECONDS, hosts=_hosts(plan))


def look_for_rivals(fleet: Fleet, plan: Plan, hosts: Iterable[str]) -> dict[str, ReserveReply]:
    """Return which of these hosts have another run of the plan's deployment, also one that has only reserved.

    A run calls this once it has reserved its own hosts. So of two runs on different hosts at least one sees the other.
    Hosts that cannot be asked are left out.
    """
    record: Record = {"head": plan.head, "gpus": [], "ports": {}}

    def args(host: Host) -> ReserveArguments:
        return {**_run(plan, host), "record": record, "exclusive": [], "look": True}

    results = fleet.call(RESERVE, args, timeout=SECONDS, hosts=hosts)
    return answers(results)


def release(fleet: Fleet, plan: Plan) -> None:
    """Release a reservation of a plan that was not started; no interrupt ends that.

    A host that cannot be reached keeps its record until the next `stop`.
    """

    def args(host: Host) -> ReserveArguments:
        return {**_run(plan, host), "release": True}

    with held_back():
        fleet.call(RESERVE, args, timeout=SECONDS, hosts=_hosts(plan))


def lost(results: Mapping[str, ReserveReply | HostError]) -> list[Fault]:
    """Return what other runs have taken on each host since it was probed.

    Raises CheckError where that is another run of the deployment itself: no other place helps.
    """
    remedy = "wait for it (--wait 30m) or stop it, then run again; or choose other GPUs, hosts or ports"
    itself = [
        Fault(name, f"{claim['what']} runs here already: {claim['by']}", "stop it, or choose another --name", host=name)
        for name, reply in answers(results).items()
        for claim in reply["taken"]
        if claim.get("own")
    ]
    if itself:
        raise CheckError(itself)
    return [
        Fault(name, f"{claim['what']} was taken meanwhile by {claim['by']}", remedy, host=name)
        for name, reply in answers(results).items()
        for claim in reply["taken"]
    ]


def _run(plan: Plan, host: Host) -> ReserveArguments:
    return {"deployment": plan.deployment, "host": host.name, "run_id": plan.run_id}


def _hosts(plan: Plan) -> list[str]:
    """Return the hosts on which something will be started, and the head: its record says what the deployment is."""
    busy = {plan.head, *(step.host for stage in plan.stages for step in stage.steps)}
    return [name for name in plan.hosts if name in busy]
