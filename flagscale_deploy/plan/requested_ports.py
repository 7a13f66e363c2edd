"""Take the ports that the configuration names before any others are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan import gate
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.ports import Ports, takes_its_own
from flagscale_deploy.plan.ray import ray_needed
from flagscale_deploy.plan.router import routed_models, router_use


def take_asked_ports(
    spec: ServeSpec,
    hosts: Sequence[Host],
    head: Host,
    placements: Sequence[Placement],
    models: Mapping[str, ModelSpec],
    ports: Ports,
) -> None:
    """Take them in the order of engines, program, Ray, routers, gate. The same use gets its port again."""
    for placement in takes_its_own(placements, models):
        model = models[placement.label]
        ports.fixed(placement.driver, model.port, placement.name, model.where)
    if spec.runs_program and spec.program_port is not None:
        use = f"{PurePosixPath(spec.entrypoint or '').stem}/0"
        for host in hosts:
            ports.fixed(host.name, spec.program_port, use, spec.where("deploy", "port"))
    if spec.ray.port is not None and ray_needed(spec, placements):
        ports.fixed(head.name, spec.ray.port, "Ray", spec.where("deploy", "ray", "port"))
    if routed := routed_models(spec, placements):
        use = router_use(routed[0])
        if spec.router.port is not None:
            ports.fixed(head.name, spec.router.port, use, spec.where("deploy", "router", "port"))
        if spec.router.metrics_port is not None:
            where = spec.where("deploy", "router", "prometheus_port")
            ports.fixed(head.name, spec.router.metrics_port, f"{use} (metrics)", where)
    gate.take_asked_ports(spec, head, ports)
