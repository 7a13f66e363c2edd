"""A plan although some hosts did not answer: what it needs of the others can be looked at all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from flagscale_deploy.config.program_files import ProgramFiles
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.planner import Draft, draft
from flagscale_deploy.rendering.render import Templates


def draft_in_part(
    inventory: Inventory,
    spec: ServeSpec,
    facts: Mapping[str, Facts],
    run_id: str,
    templates: Templates,
    program: ProgramFiles | None = None,
    *,
    skip: Collection[str] = (),
) -> Draft:
    """As `planner.draft` where all hosts have facts. One that has none is taken for what the inventory says, and where
    that is silent for a host with as many GPUs as most others; nothing is said to be wrong with it.

    No plan where no host has facts. Raises InputError where the specification is wrong by itself.
    """
    if not facts:
        return Draft(None)
    completed = _completed(inventory, facts)
    found = draft(completed, spec, facts, run_id, templates, program, skip=skip)
    silent = set(inventory.names) - facts.keys()
    return replace(
        found,
        faults=tuple(each for each in found.faults if each.where not in silent),
        idle=tuple(each for each in found.idle if each.where not in silent),
    )


def _completed(inventory: Inventory, facts: Mapping[str, Facts]) -> Inventory:
    usual = Counter(len(each.gpus) for each in facts.values()).most_common(1)[0][0]
    hosts = (
        host if host.name in facts or host.gpus is not None or host.type == "cpu" else replace(host, gpus=usual)
        for host in inventory.hosts
    )
    return replace(inventory, hosts=tuple(hosts))
