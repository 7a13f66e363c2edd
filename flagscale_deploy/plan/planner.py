"""Make a `Plan` from inventory, specification and facts, or report every fault at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from flagscale_deploy.config.program_files import ProgramFiles
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import CheckError, Fault, InputError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.eligibility import eligible_hosts
from flagscale_deploy.plan.gpu_placement import busy_gpus, free_gpus, place
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.instance import plan_instance
from flagscale_deploy.plan.model import EXCLUSIVE, InstancePlan, Plan
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.plan.ports import WORKER_PORTS, Ports, plan_engine_ports
from flagscale_deploy.plan.program import plan_program
from flagscale_deploy.plan.ray import plan_ray, ray_needed
from flagscale_deploy.plan.requested_ports import take_asked_ports
from flagscale_deploy.plan.router import plan_routers
from flagscale_deploy.plan.software import software_faults
from flagscale_deploy.plan.stages import plan_stages, render_scripts
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.rendering.render import Templates


@dataclass(frozen=True)
class Draft:
    """A plan and its faults. `plan` is None if something cannot be placed; there may be faults beside a plan.

    `idle` are faults of hosts that the plan does not use: they do no harm.
    """

    plan: Plan | None
    faults: tuple[Fault, ...] = ()
    idle: tuple[Fault, ...] = ()


def plan(
    inventory: Inventory,
    spec: ServeSpec,
    facts: Mapping[str, Facts],
    run_id: str,
    templates: Templates,
    program: ProgramFiles | None = None,
    *,
    skip: Collection[str] = (),
) -> Plan:
    """Return the plan for bringing a deployment up.

    `facts` has every host of the inventory, or is empty if none was contacted; `program` are the files of the program
    that the specification runs, if it runs one. Faults of the checks in `skip` are ignored, if a plan can be made in
    spite of them: without gpu-busy, busy GPUs are used too. The same input gives the same plan. Raises CheckError with
    all faults, or InputError if no host was contacted or could help.
    """
    made = draft(inventory, spec, facts, run_id, templates, program, skip=skip)
    if made.plan is None or made.faults:
        raise (CheckError if facts else InputError)(made.faults)
    return made.plan


def draft(
    inventory: Inventory,
    spec: ServeSpec,
    facts: Mapping[str, Facts],
    run_id: str,
    templates: Templates,
    program: ProgramFiles | None = None,
    *,
    skip: Collection[str] = (),
) -> Draft:
    """Return a plan as `plan` does, with faults beside the plan if there can be one.

    Raises InputError if the specification itself is wrong.
    """
    refuse_wrong(spec)
    if spec.runs_program and program is None:
        raise InputError.at(f"{spec.source}: experiment.task.entrypoint", "its files are needed for a plan",
                            "read them first: load_program")  # fmt: skip
    hosts, head = inventory.hosts, inventory.head
    networks, faults = plan_networks(hosts, facts)
    ports = Ports(facts, spec.name, faults)
    forced = "gpu-busy" in skip
    busy = {} if forced else {name: busy_gpus(host_facts, spec.name) for name, host_facts in facts.items()}
    miscounted: list[Fault] = []
    misplaced: list[Fault] = []
    free = free_gpus(hosts, spec, facts, busy, miscounted)
    holders = {
        name: {**dict.fromkeys(free[name], ""), **{gpu: use.holder for gpu, use in busy.get(name, {}).items()}}
        for name in inventory.names
    }
    eligible = eligible_hosts(spec, inventory)
    placements = place(spec, eligible, free, busy, misplaced)
    miscounted = [fault for fault in miscounted if fault.check not in skip]
    if any(host_facts.gpu_error for host_facts in facts.values()) and "gpu-driver" not in skip:
        misplaced = [replace(fault, check="gpu-driver") for fault in misplaced]
    faults += miscounted or misplaced  # GPUs that were counted wrong explain a lack of room
    models = {model.name: model for model in spec.models}
    take_asked_ports(spec, hosts, head, placements, models, ports)
    workers = WORKER_PORTS if ray_needed(spec, placements) else ()
    engine_ports = plan_engine_ports(placements, models, ports, avoiding=workers)
    inputs = Inputs(spec, inventory, facts, networks)
    ray = plan_ray(inputs, placements, free, ports, run_id)
    faults += [
        Fault(models[placement.model].where, f"replica {placement.replica} needs Ray, and deploy.ray is off",
              "set deploy.ray: auto", "placement")
        for placement in placements
        if placement.executor == "ray" and not ray.enabled
    ]  # fmt: skip
    instances = tuple(
        plan_instance(inputs, models[placement.model], placement, engine_ports[placement.model, placement.replica], ray)
        for placement in placements
    )
    routers = plan_routers(spec, head, instances, networks, ports, facts.get(head.name), faults)
    if program is not None:
        instances += (plan_program(spec, program, inventory, networks, free, ray, ports),)
    faults += software_faults(
        facts,
        [node.host for node in ray.nodes],
        [name for placement in placements for name in placement.hosts],
        [router.driver for router in routers],
    )
    wrong = tuple(dict.fromkeys(fault for fault in faults if fault.check not in skip or fault.check == "placement"))
    if misplaced or any(fault.check == "placement" for fault in wrong):
        return Draft(None, wrong)
    unscripted = Plan(
        run_id=run_id,
        deployment=spec.name,
        digest=digest(inventory, spec, templates, program),
        head=head.name,
        hosts=inventory.names,
        ray=ray,
        instances=instances,
        routers=routers,
        stages=plan_stages(ray, instances, routers, spec.timeouts),
        scripts={},
        gpus=_with_instances(holders, instances),
        exclusive=tuple(kind for kind in EXCLUSIVE if not (forced if kind == "gpus" else kind in skip)),
        restart=spec.restart,
        app=program.files if program else {},
    )
    working = {*unscripted.working, *(fault.where for fault in wrong if fault.where not in inventory.names)}
    return Draft(
        render_scripts(unscripted, inventory, spec, networks, templates, program),
        tuple(fault for fault in wrong if fault.where in working),
        tuple(fault for fault in wrong if fault.where not in working),
    )


def _with_instances(
    holders: Mapping[str, Mapping[int, str]], instances: Sequence[InstancePlan]
) -> dict[str, dict[int, str]]:
    held = {name: dict(sorted(gpus.items())) for name, gpus in holders.items()}
    for instance in instances:
        for name, indexes in instance.gpus.items():
            held[name] |= dict.fromkeys(indexes, instance.name)
    return held


def digest(inventory: Inventory, spec: ServeSpec, templates: Templates, program: ProgramFiles | None = None) -> str:
    """Return a hash that changes with hosts, configuration, templates and program.

    Where the operator keeps their files, and how long they wait, is not part of it.
    """
    public = spec.public()
    programs = () if spec.runs_program else ("document", "program_port")
    content = {
        "hosts": [_without(vars(host), "vars", "identity_file", "known_hosts") for host in inventory.hosts],
        "head": inventory.head.name,
        "spec": {
            **_without(public, "timeouts", "source", "exp_dir", "hostfile", "action", *programs),
            "models": [_without(model, "where", "places") for model in public["models"]],
            "tls": public["tls"] and _without(public["tls"], "authority"),
        },
        "templates": templates.digest,
        "program": program.digest if program else None,
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _without(content: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in content.items() if key not in keys}
