"""The planner: inventory, specification and observations in, a `Plan` out, or every fault at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import CheckError, Fault, InputError
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.patterns import limit
from flagscale_deploy.observation import Facts
from flagscale_deploy.plan.environment import host_environment, visible
from flagscale_deploy.plan.model import InstancePlan, Network, Placement, Plan, RayPlan, join_port
from flagscale_deploy.plan.network import LOOPBACK, is_address, plan_networks
from flagscale_deploy.plan.placement import busy_gpus, free_gpus, place
from flagscale_deploy.plan.ports import Ports, plan_engine_ports
from flagscale_deploy.plan.ray import plan_ray
from flagscale_deploy.plan.software import software_faults
from flagscale_deploy.plan.stages import plan_stages, render_scripts
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.plan.vllm import serve_argv
from flagscale_deploy.render import Templates


@dataclass(frozen=True)
class _Ground:
    """What every part of the planner stands on."""

    inventory: Inventory
    spec: ServeSpec
    facts: Mapping[str, Facts]
    networks: Mapping[str, Network]


def plan(
    inventory: Inventory,
    spec: ServeSpec,
    facts: Mapping[str, Facts],
    run_id: str,
    templates: Templates,
    *,
    force: bool = False,
) -> Plan:
    """The plan for bringing a deployment up.

    `facts` has every host of the inventory, or is empty when none was contacted; `force` hands out busy GPUs too.
    Same input, same plan. Raises CheckError with all faults; InputError where no host was contacted or could help.
    """
    refuse_wrong(spec)
    faults: list[Fault] = []
    hosts, head = inventory.hosts, inventory.head
    ground = _Ground(inventory, spec, facts, plan_networks(hosts, facts, faults))
    ports = Ports(facts, spec.name, faults)
    busy = {} if force else {name: busy_gpus(each, spec.name) for name, each in facts.items()}
    miscounted: list[Fault] = []
    misplaced: list[Fault] = []
    free = free_gpus(hosts, spec, facts, busy, miscounted)
    eligible = {model.name: _eligible(model, inventory) for model in spec.models}
    placements = place(spec, eligible, free, busy, misplaced)
    faults += miscounted or misplaced  # what finds no place on GPUs that were counted wrong is no news
    models = {model.name: model for model in spec.models}
    engine_ports = plan_engine_ports(placements, models, ports)
    ray = plan_ray(spec, hosts, head, ground.networks, placements, free, facts, ports, run_id)
    faults += [
        Fault(
            models[each.model].where, f"replica {each.replica} needs Ray, and deploy.ray is off", "set deploy.ray: auto"
        )
        for each in placements
        if each.executor == "ray" and not ray.enabled
    ]
    faults += software_faults(facts, [node.host for node in ray.nodes], [each.driver for each in placements])
    if faults:
        raise (CheckError if facts else InputError)(list(dict.fromkeys(faults)))
    instances = tuple(
        _instance(ground, models[each.model], each, engine_ports[each.model, each.replica], ray) for each in placements
    )
    unscripted = Plan(
        run_id=run_id,
        deployment=spec.name,
        digest=digest(inventory, spec, templates),
        head=head.name,
        hosts=inventory.names,
        ray=ray,
        instances=instances,
        stages=plan_stages(ray, instances, spec.timeouts),
        scripts={},
    )
    return render_scripts(unscripted, inventory, spec, ground.networks, templates)


def _eligible(model: ModelSpec, inventory: Inventory) -> tuple[Host, ...]:
    """The hosts a model may be placed on, the head first. Raises InputError for a pattern that names none."""
    allowed = inventory
    if model.hosts is not None:
        try:
            allowed = limit(inventory, model.hosts)
        except InputError as error:
            raise InputError([replace(fault, where=f"{model.where}: hosts") for fault in error.faults]) from error
    return tuple(sorted(allowed.hosts, key=lambda host: host.name != inventory.head.name))


def digest(inventory: Inventory, spec: ServeSpec, templates: Templates) -> str:
    """A name for what was asked for: it is the same exactly when hosts, configuration and templates are.

    Where the operator keeps his files, and how long he waits, is not part of it.
    """
    public = spec.public()
    asked = {
        "hosts": [_without(asdict(host), "vars", "identity_file", "known_hosts") for host in inventory.hosts],
        "head": inventory.head.name,
        "spec": {
            **_without(public, "timeouts", "source", "exp_dir", "hostfile"),
            "models": [_without(model, "where") for model in public["models"]],
        },
        "templates": templates.digest,
    }
    return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _without(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _instance(ground: _Ground, model: ModelSpec, placement: Placement, port: int, ray: RayPlan) -> InstancePlan:
    driver = ground.inventory[placement.driver]
    network = ground.networks[driver.name]
    extra: dict[str, Any] = {}
    if placement.executor == "ray" and len(placement.hosts) > 1:
        extra["distributed-executor-backend"] = "ray"
    env = host_environment(ground.spec, driver, network)
    env |= {"RAY_ADDRESS": ray.address} if placement.executor == "ray" else {}
    env |= visible(placement.gpus[driver.name]) if placement.pinned else {}
    scheme = "https" if model.engine_args.get("ssl-certfile") else "http"
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
        argv=serve_argv(model, port=port, extra=extra),
        env=env,
        endpoint=f"{scheme}://{join_port(_public_address(driver, network, bound), port)}/v1",
        served_name=_served_name(model),
        script=f"vllm_serve_{_file_name(model.name)}_{placement.replica}.sh",
        local_url=f"{scheme}://{join_port(_local_address(bound), port)}",
    )


def _file_name(name: str) -> str:
    """A model's name as part of a file name; two models never share one."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _served_name(model: ModelSpec) -> str:
    """The name clients ask for; vLLM takes the first of several, and the model's path where none is given."""
    given = model.engine_args.get("served-model-name")
    if isinstance(given, list | tuple):
        given = given[0] if given else None
    return str(given or model.model)


def _public_address(host: Host, network: Network, bound: Any) -> str:
    """What clients outside reach the server by: what it is bound to, the operator's address, or the data network's."""
    if bound and bound not in ("0.0.0.0", "::"):
        return str(bound)
    if host.connection == "ssh" and host.proxy_jump is None and is_address(host.address):
        return host.address
    return network.node_ip


def _local_address(bound: Any) -> str:
    return str(bound) if bound and bound not in ("0.0.0.0", "::") else LOOPBACK
