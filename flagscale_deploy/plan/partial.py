"""Plan although some hosts did not answer, so that the others can be checked all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import Draft, draft


def draft_in_part(inputs: Inputs) -> Draft:
    """Return a draft as `planner.draft` does, although some hosts have no facts.

    For such a host the inventory counts, or else as many GPUs as most other hosts have; its faults are left out. There
    is no plan if no host has facts. Raises InputError if the specification itself is wrong.
    """
    if not inputs.facts:
        return Draft(None)
    complete = draft(replace(inputs, inventory=_completed(inputs.inventory, inputs.facts)))
    silent = set(inputs.inventory.names) - inputs.facts.keys()
    return replace(
        complete,
        faults=tuple(fault for fault in complete.faults if fault.where not in silent),
        idle=tuple(fault for fault in complete.idle if fault.where not in silent),
    )


def _completed(inventory: Inventory, facts: Mapping[str, Facts]) -> Inventory:
    usual = Counter(len(host_facts.gpus) for host_facts in facts.values()).most_common(1)[0][0]
    hosts = (
        host if host.name in facts or host.gpus is not None or host.type == "cpu" else replace(host, gpus=usual)
        for host in inventory.hosts
    )
    return replace(inventory, hosts=tuple(hosts))
