"""Plan one replica of a model as the process that serves it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.environment import host_environment, visible
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import InstancePlan, Network, Placement, RayPlan, flag_of, join_port
from flagscale_deploy.plan.network import EVERY_ADDRESS, LOOPBACK, public_address
from flagscale_deploy.plan.tls import tls_flags
from flagscale_deploy.plan.vllm import serve_argv


def plan_instance(inputs: Inputs, model: ModelSpec, placement: Placement, port: int, ray: RayPlan) -> InstancePlan:
    """Return the process that serves a placed replica: its command line, environment and addresses."""
    spec, driver = inputs.spec, inputs.inventory[placement.driver]
    network = inputs.networks[driver.name]
    own = _own_flags(spec, driver, network)
    extra = own | tls_flags(spec, model, driver.name, inputs.facts.get(driver.name), own)
    if placement.executor == "ray" and len(placement.hosts) > 1:
        extra["distributed-executor-backend"] = "ray"
    env = host_environment(spec, driver, network)
    env |= {"RAY_ADDRESS": ray.address} if placement.executor == "ray" else {}
    env |= visible(placement.gpus[driver.name]) if placement.pinned else {}
    argv = serve_argv(model, port=port, extra=extra)
    scheme = "https" if flag_of(argv, "ssl-certfile") else "http"
    bound = model.engine_args.get("host")
    return InstancePlan(
        model=model.name,
        replica=placement.replica,
        engine=model.engine,
        hosts=placement.hosts,
        driver=driver.name,
        gpus=placement.gpus,
        executor=placement.executor,
        port=port,
        argv=argv,
        env=env,
        endpoint=f"{scheme}://{join_port(public_address(driver, network, bound), port)}/v1",
        served_name=_served_name(model),
        script=f"vllm_serve_{file_name(model.name)}_{placement.replica}.sh",
        local_url=f"{scheme}://{join_port(bound_address(bound, LOOPBACK), port)}",
        worker_url=f"{scheme}://{join_port(bound_address(bound, network.node_ip), port)}",
    )


def _own_flags(spec: ServeSpec, host: Host, network: Network) -> dict[str, object]:
    """Return the flags in `node_args` for instances that a host drives, by any of its names."""
    flags: dict[str, object] = {}
    for name in (network.node_ip, host.address, host.name):
        flags |= spec.host_engine_args.get(name, {})
    return flags


def file_name(name: str) -> str:
    """Return a model's name as part of a file name; different models never get the same."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _served_name(model: ModelSpec) -> str:
    """Return the name that clients use; vLLM takes the first of several, by default the model's path."""
    name = model.engine_args.get("served-model-name")
    if isinstance(name, list | tuple):
        name = name[0] if name else None
    return str(name or model.model)


def bound_address(bound: Any, otherwise: str) -> str:
    """Return the address a server listens on, or `otherwise` if it listens on none in particular or all."""
    return str(bound) if bound and bound not in EVERY_ADDRESS else otherwise
