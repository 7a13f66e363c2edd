"""Take from a plan what some of its servers need, to start those into a deployment that runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from flagscale_deploy.plan.entrances import SETTINGS
from flagscale_deploy.plan.model import Plan, Stage
from flagscale_deploy.plan.ray_change import WORKER, node_host, node_name

SHARED = ("ray_nodes.sh", "notify.sh", "warm.sh")
"""Scripts that a group's supervisor, or a Ray node, calls."""


def some_groups(plan: Plan, names: Collection[str]) -> Plan:
    """Return the plan of these servers and Ray nodes alone. Raises KeyError where the plan has one of them not.

    Their hosts get their own scripts, those that these call, and what a gate reads; all others stay. Servers start when
    Ray counts the nodes.
    """
    servers = {server.name: server for server in plan.servers}
    nodes = [host for name in dict.fromkeys(names) if (host := node_host(name)) is not None]
    chosen = [servers[name] for name in dict.fromkeys(names) if node_host(name) is None]
    instances = tuple(instance for instance in plan.instances if instance in chosen)
    ranks = [rank for instance in instances for rank in instance.members]
    ranks += [rank for front in plan.fronts if front in chosen for rank in front.ranks]
    own = {(rank.host, rank.script) for rank in ranks} | _of_nodes(plan, nodes)
    read = {(plan.gate.driver, SETTINGS)} if plan.gate is not None and plan.gate in chosen else set()
    stages = _stages(plan, own)
    return replace(
        plan,
        instances=instances,
        routers=tuple(router for router in plan.routers if router in chosen),
        gate=plan.gate if plan.gate in chosen else None,
        stages=stages,
        scripts={
            host: {
                script: text
                for script, text in plan.scripts[host].items()
                if (host, script) in {*own, *read} or script in SHARED
            }
            for host in dict.fromkeys(step.host for stage in stages for step in stage.steps)
        },
    )


def parts_of(plan: Plan) -> set[str]:
    """Return the names of a plan's servers and Ray nodes."""
    return {*(server.name for server in plan.servers), *(node_name(node.host) for node in plan.ray.nodes)}


def without_files(plan: Plan) -> Plan:
    """Return a plan whose files are on its hosts."""
    return replace(plan, scripts={host: {} for host in plan.scripts}, app={})


def _of_nodes(plan: Plan, hosts: Collection[str]) -> set[tuple[str, str]]:
    """Return the host and script of what starts these worker nodes of Ray, and waits for them."""
    if missing := {*hosts} - {node.host for node in plan.ray.nodes if node.role == "worker"}:
        raise KeyError(*missing)
    return {(plan.head, "ray_nodes.sh"), *((host, WORKER) for host in hosts)} if hosts else set()


def _stages(plan: Plan, own: Collection[tuple[str, str]]) -> tuple[Stage, ...]:
    """Return the stages with these steps alone, each after those of them that it needs."""
    stages = [replace(stage, steps=tuple(step for step in stage.steps if (step.host, step.script) in own))
              for stage in plan.stages]  # fmt: skip
    names = {stage.name for stage in stages if stage.steps}
    return tuple(
        replace(stage, after=tuple(name for name in stage.after if name in names)) for stage in stages if stage.steps
    )
