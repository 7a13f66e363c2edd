"""Plan the Ray cluster of a deployment: its nodes, their resources and ports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.gpu_use import Free
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Placement, RayNode, RayPlan
from flagscale_deploy.plan.ports import WORKER_PORTS, Ports

GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, AGENT_PORT = 6379, 8265, 10001, 52365


def ray_needed(spec: ServeSpec, placements: Sequence[Placement]) -> bool:
    """Return whether the deployment gets a Ray cluster: always, never, or (auto) if something runs on Ray."""
    on_ray = spec.runs_program or any(placement.executor == "ray" for placement in placements)
    return spec.ray.mode == "on" or (spec.ray.mode == "auto" and on_ray)


def plan_ray(inputs: Inputs, placements: Sequence[Placement], free: Free, ports: Ports) -> RayPlan:
    """Return the cluster over all hosts. Each node has the GPUs that no pinned instance holds, so Ray's count is true.

    `free` holds what `place` left over. Ray itself picks the nodes of an instance that it carries, so where such a
    model may have some hosts only, Ray is told of no more GPUs than the plan gives to those instances.
    """
    asked, head, networks = inputs.spec, inputs.inventory.head, inputs.networks
    spec = asked.ray
    session = hashlib.sha256(inputs.run_id.encode()).hexdigest()[:8]
    if not ray_needed(asked, placements):
        return RayPlan(False, head.name, networks[head.name].node_ip, spec.port or GCS_PORT, session)
    port = (
        ports.next_free(head.name, GCS_PORT, "Ray")
        if spec.port is None
        else ports.fixed(head.name, spec.port, "Ray", asked.where("deploy", "ray", "port"))
    )
    if _restricted(asked, placements):
        free = {name: [] for name in free}
    order = [head, *(host for host in inputs.inventory.hosts if host is not head)]
    return RayPlan(
        enabled=True,
        head=head.name,
        head_ip=networks[head.name].node_ip,
        port=port,
        session=session,
        nodes=tuple(_node(inputs, host, placements, free, ports) for host in order),
        dashboard=spec.dashboard,
        dashboard_port=ports.next_free(head.name, DASHBOARD_PORT, "Ray's dashboard"),
        client_port=ports.next_free(head.name, CLIENT_PORT, "Ray's client server", avoiding=WORKER_PORTS),
    )


def _restricted(spec: ServeSpec, placements: Sequence[Placement]) -> bool:
    on_ray = {placement.label for placement in placements if not placement.pinned}
    return any(model.label in on_ray and (model.hosts is not None or model.host_types) for model in spec.engines)


def _node(inputs: Inputs, host: Host, placements: Sequence[Placement], free: Free, ports: Ports) -> RayNode:
    facts = inputs.facts.get(host.name)
    held = [index for placement in placements if not placement.pinned for index in placement.gpus.get(host.name, ())]
    gpus = tuple(sorted([*free[host.name], *held]))
    before = inputs.held.ray.get(host.name)
    if before is not None and set(held) <= set(before) <= set(gpus):
        gpus = tuple(before)
    present = tuple(gpu.index for gpu in facts.gpus) if facts is not None else gpus
    custom = host.type not in ("gpu", "cpu") and gpus
    return RayNode(
        host=host.name,
        role="head" if host is inputs.inventory.head else "worker",
        node_ip=inputs.networks[host.name].node_ip,
        num_gpus=len(gpus),
        num_cpus=host.cpus,
        resources={host.type: float(len(gpus))} if custom else {},
        visible_gpus=None if gpus == present else gpus,
        agent_port=ports.next_free(host.name, AGENT_PORT, "Ray's dashboard agent"),
    )
