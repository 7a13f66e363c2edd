"""The planner: inventory, specification and observations in, a `Plan` out, or every fault at once."""

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
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.instance import plan_instance
from flagscale_deploy.plan.model import EXCLUSIVE, InstancePlan, Plan
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.plan.placement import busy_gpus, free_gpus, place
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
    """A plan and what is wrong with it. `plan` is None where something has no place; faults may stand beside a plan.

    `idle` are faults of hosts that nothing of it runs on: they are in nobody's way.
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
    """The plan for bringing a deployment up.

    `facts` has every host of the inventory, or is empty when none was contacted; `program` are the files
    of the program that the specification runs, if it runs one; faults of the checks in `skip` are none, where a plan
    can be made in spite of them: without gpu-busy, busy GPUs are handed out too.
    Same input, same plan. Raises CheckError with all faults; InputError where no host was contacted or could help.
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
    """As `plan`, with faults beside the plan where there can be one, so that the rest of it can be looked at as well.

    Raises InputError where the specification is wrong by itself.
    """
    refuse_wrong(spec)
    if spec.runs_program and program is None:
        raise InputError.at(f"{spec.source}: experiment.task.entrypoint", "is planned with the program's files only",
                            "read them first: program.load_program")  # fmt: skip
    hosts, head = inventory.hosts, inventory.head
    networks, faults = plan_networks(hosts, facts)
    ports = Ports(facts, spec.name, faults)
    forced = "gpu-busy" in skip
    busy = {} if forced else {name: busy_gpus(each, spec.name) for name, each in facts.items()}
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
    if any(each.gpu_error for each in facts.values()) and "gpu-driver" not in skip:
        misplaced = [replace(fault, check="gpu-driver") for fault in misplaced]
    faults += miscounted or misplaced  # what finds no place on GPUs that were counted wrong is no news
    models = {model.name: model for model in spec.models}
    take_asked_ports(spec, hosts, head, placements, models, ports)
    workers = WORKER_PORTS if ray_needed(spec, placements) else ()
    engine_ports = plan_engine_ports(placements, models, ports, avoiding=workers)
    inputs = Inputs(spec, inventory, facts, networks)
    ray = plan_ray(inputs, placements, free, ports, run_id)
    faults += [
        Fault(models[each.model].where, f"replica {each.replica} needs Ray, and deploy.ray is off",
              "set deploy.ray: auto", "placement")
        for each in placements
        if each.executor == "ray" and not ray.enabled
    ]  # fmt: skip
    instances = tuple(
        plan_instance(inputs, models[each.model], each, engine_ports[each.model, each.replica], ray)
        for each in placements
    )
    routers = plan_routers(spec, head, instances, networks, ports, facts.get(head.name), faults)
    if program is not None:
        instances += (plan_program(spec, program, inventory, networks, free, ray, ports),)
    faults += software_faults(
        facts,
        [node.host for node in ray.nodes],
        [name for each in placements for name in each.hosts],
        [each.driver for each in routers],
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
        exclusive=tuple(each for each in EXCLUSIVE if not (forced if each == "gpus" else each in skip)),
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
    for each in instances:
        for name, indexes in each.gpus.items():
            held[name] |= dict.fromkeys(indexes, each.name)
    return held


def digest(inventory: Inventory, spec: ServeSpec, templates: Templates, program: ProgramFiles | None = None) -> str:
    """A name for what was asked for: it is the same exactly when hosts, configuration, templates and program are.

    Where the operator keeps his files, and how long he waits, is not part of it.
    """
    public = spec.public()
    programs = () if spec.runs_program else ("document", "program_port")
    asked = {
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
    return "sha256:" + hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _without(content: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in content.items() if key not in keys}
