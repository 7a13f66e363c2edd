"""Take from a plan what some of its servers need, to start those into a deployment that runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from flagscale_deploy.plan.entrances import SETTINGS
from flagscale_deploy.plan.model import Plan

SHARED = ("ray_nodes.sh", "notify.sh")
"""Scripts that a group's supervisor calls."""


def some_groups(plan: Plan, names: Collection[str]) -> Plan:
    """Return the plan of these servers alone. Raises KeyError where the plan has one of them not.

    Their hosts get their own scripts, those that their supervisors call, and what a gate reads; all others stay.
    """
    servers = {server.name: server for server in plan.servers}
    chosen = [servers[name] for name in dict.fromkeys(names)]
    instances = tuple(instance for instance in plan.instances if instance in chosen)
    ranks = [rank for instance in instances for rank in instance.members]
    ranks += [rank for front in plan.fronts if front in chosen for rank in front.ranks]
    own = {(rank.host, rank.script) for rank in ranks}
    read = {(plan.gate.driver, SETTINGS)} if plan.gate is not None and plan.gate in chosen else set()
    stages = (
        replace(stage, steps=tuple(step for step in stage.steps if (step.host, step.script) in own), after=())
        for stage in plan.stages
    )
    return replace(
        plan,
        instances=instances,
        routers=tuple(router for router in plan.routers if router in chosen),
        gate=plan.gate if plan.gate in chosen else None,
        stages=tuple(stage for stage in stages if stage.steps),
        scripts={
            host: {
                script: text
                for script, text in plan.scripts[host].items()
                if (host, script) in {*own, *read} or script in SHARED
            }
            for host in dict.fromkeys(rank.host for rank in ranks)
        },
    )
