"""A run's GPUs and ports, taken on all hosts before anything starts: two runs planned at once get different ones."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.messages.run import RESERVE, ReserveArguments, ReserveReply
from flagscale_deploy.transport.fleet import Fleet, answers

SECONDS = 60.0


def reserve(fleet: Fleet, plan: Plan, records: Mapping[str, Record]) -> dict[str, ReserveReply | HostError]:
    """Take what the plan gives to this run: what each host says, or its error. `taken` says what was lost to others."""

    def args(host: Host) -> ReserveArguments:
        return {**_run(plan, host), "record": records[host.name], "exclusive": list(plan.exclusive)}

    return fleet.call(RESERVE, args, timeout=SECONDS, hosts=_hosts(plan))


def release(fleet: Fleet, plan: Plan) -> None:
    """Give it back where nothing was started; a host that cannot be reached keeps its record until the next `stop`."""

    def args(host: Host) -> ReserveArguments:
        return {**_run(plan, host), "release": True}

    fleet.call(RESERVE, args, timeout=SECONDS, hosts=_hosts(plan))


def lost(results: Mapping[str, ReserveReply | HostError]) -> list[Fault]:
    """What somebody else took between the look at the hosts and now, host by host."""
    remedy = "wait for it or stop it, then run again; or choose others"
    return [
        Fault(name, f"{each['what']} has been taken meanwhile by {each['by']}", remedy, host=name)
        for name, answer in answers(results).items()
        for each in answer["taken"]
    ]


def _run(plan: Plan, host: Host) -> ReserveArguments:
    return {"deployment": plan.deployment, "host": host.name, "run_id": plan.run_id}


def _hosts(plan: Plan) -> list[str]:
    """The hosts on which something will be started."""
    busy = {step.host for stage in plan.stages for step in stage.steps}
    return [name for name in plan.hosts if name in busy]
