"""Make a `Plan` from inventory, specification and facts, or report every fault at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flagscale_deploy.config.program_files import ProgramFiles
from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import BusyError, CheckError, Fault, InputError
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.eligibility import eligible_hosts
from flagscale_deploy.plan.entrances import GatePlan, RouterPlan
from flagscale_deploy.plan.gate import plan_gate
from flagscale_deploy.plan.gpu_placement import place
from flagscale_deploy.plan.gpu_use import Free, busy_gpus, free_gpus
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.instance import plan_instance
from flagscale_deploy.plan.model import EXCLUSIVE, InstancePlan, Placement, Plan, RayPlan
from flagscale_deploy.plan.pools import SIDE_HOST
from flagscale_deploy.plan.ports import WORKER_PORTS, Ports, plan_engine_ports
from flagscale_deploy.plan.program import plan_program, tasks_without_room
from flagscale_deploy.plan.ray import plan_ray, ray_needed
from flagscale_deploy.plan.requested_ports import take_asked_ports
from flagscale_deploy.plan.router import plan_routers
from flagscale_deploy.plan.size import refuse_large
from flagscale_deploy.plan.software import software_faults
from flagscale_deploy.plan.spares import add_spares, spare_faults, without
from flagscale_deploy.plan.stages import plan_stages, render_scripts
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.plan.versions import version_faults
from flagscale_deploy.rendering.render import Templates


@dataclass(frozen=True)
class Draft:
    """A plan and its faults. `plan` is None if something cannot be placed; there may be faults beside a plan.

    `idle` are faults of hosts that the plan does not use: they do no harm.
    """

    plan: Plan | None
    faults: tuple[Fault, ...] = ()
    idle: tuple[Fault, ...] = ()


def plan(inputs: Inputs) -> Plan:
    """Return the plan for bringing a deployment up.

    Raises CheckError with all faults, or InputError if no host was contacted or could help.
    """
    made = draft(inputs)
    if made.plan is None or made.faults:
        busy = BusyError if is_busy(made.faults) else CheckError
        raise (busy if inputs.facts else InputError)(made.faults)
    return made.plan


def is_busy(faults: Sequence[Fault]) -> bool:
    """Return whether there are faults, and all of them only of GPUs and ports that others have now."""
    return bool(faults) and all(fault.check == "gpu-busy" or fault.taken_port is not None for fault in faults)


def draft(inputs: Inputs) -> Draft:
    """Return a plan as `plan` does, with faults beside the plan if there can be one.

    Raises InputError if the specification itself is wrong.
    """
    spec, inventory, program = inputs.spec, inputs.inventory, inputs.program
    refuse_wrong(spec)
    refuse_large(inputs)
    if spec.runs_program and program is None:
        raise InputError.at(spec.where("experiment", "task", "entrypoint"), "its files are needed for a plan",
                            "read them first: load_program")  # fmt: skip
    faults = inputs.network_faults
    ports = Ports(inputs.facts, spec.name, faults, inputs.held.ports)
    room = _place(inputs)
    faults += room.faults
    take_asked_ports(spec, inventory.hosts, inventory.head, room.placements, _models(spec), ports)
    engine_ports = _engine_ports(spec, room.placements, ports)
    ray = plan_ray(inputs, room.placements, without(room.free, room.placements), ports)
    faults += [*_without_ray(spec, room.placements, ray), *_unrestartable(spec, room.placements)]
    faults += spare_faults(spec, room.placements, {label: model.where for label, model in _models(spec).items()})
    instances = tuple(
        plan_instance(inputs, _models(spec)[placement.label], placement, port, ray, ports)
        for placement, port in zip(room.placements, engine_ports, strict=True)
    )
    routers = plan_routers(spec, inventory.head, instances, inputs.networks, ports,
                           inputs.facts.get(inventory.head.name), faults)  # fmt: skip
    gate = plan_gate(inputs, instances, routers, ports, faults)
    if program is not None:
        instances += (plan_program(spec, program, inventory, inputs.networks, room.free, ray, ports),)
    faults += software_faults(
        inputs.facts,
        [node.host for node in ray.nodes],
        [name for placement in room.placements for name in (*placement.hosts, *placement.spares)],
        [router.driver for router in routers],
        [rank.host for instance in instances for rank in instance.ranks if SIDE_HOST in rank.env],
        [gate.driver] if gate else [],
    )
    faults += version_faults(inputs.facts, instances)
    remaining = dict.fromkeys(fault for fault in faults if fault.check not in inputs.skip or fault.check == "placement")
    if room.is_short or any(fault.check == "placement" for fault in remaining):
        return Draft(None, tuple(remaining))
    unscripted = replace(_assemble(inputs, room, ray, instances, (routers, gate)), chosen_ports=ports.chosen)
    working = {*unscripted.working, *(fault.where for fault in remaining if fault.where not in inventory.names)}
    return Draft(
        render_scripts(unscripted, inputs),
        tuple(fault for fault in remaining if fault.where in working),
        tuple(fault for fault in remaining if fault.where not in working),
    )


@dataclass(frozen=True)
class _Room:
    """The places of all replicas, the GPUs that are left, and those of each host with their users ("": none).

    `is_short` means that a replica has no place; `faults` say why, or what is wrong with the number of GPUs.
    """

    placements: tuple[Placement, ...]
    free: Free
    users: Mapping[str, Mapping[int, str]]
    faults: list[Fault]
    is_short: bool


def _place(inputs: Inputs) -> _Room:
    spec, inventory, facts, skip = inputs.spec, inputs.inventory, inputs.facts, inputs.skip
    uses = {name: busy_gpus(host_facts, spec.name) for name, host_facts in facts.items()}
    busy = {} if inputs.uses_busy_gpus else uses
    miscounted: list[Fault] = []
    misplaced: list[Fault] = []
    free = free_gpus(inventory.hosts, spec, facts, busy, miscounted)
    users = {
        name: {**dict.fromkeys(free[name], ""), **{gpu: use.holder for gpu, use in busy.get(name, {}).items()}}
        for name in inventory.names
    }
    eligible = eligible_hosts(spec, inventory)
    placements = add_spares(spec, place(spec, eligible, free, busy, misplaced, inputs.held.gpus), eligible, free)
    misplaced += tasks_without_room(spec, free, busy)
    if any(host_facts.gpu_error for host_facts in facts.values()) and "gpu-driver" not in skip:
        misplaced = [replace(fault, check="gpu-driver") for fault in misplaced]
    miscounted = [fault for fault in miscounted if fault.check not in skip]
    # GPUs that were counted wrong explain a lack of room.
    return _Room(placements, free, users, miscounted or misplaced, is_short=bool(misplaced))


def _without_ray(spec: ServeSpec, placements: Sequence[Placement], ray: RayPlan) -> list[Fault]:
    return [
        Fault(_models(spec)[placement.label].where, f"replica {placement.replica} needs Ray, and deploy.ray is off",
              "set deploy.ray: auto", "placement")
        for placement in placements
        if placement.executor == "ray" and not ray.enabled
    ]  # fmt: skip


def _unrestartable(spec: ServeSpec, placements: Sequence[Placement]) -> list[Fault]:
    """Return groups of several ranks that are to start after a reboot, but with nobody to restart the other ranks."""
    if spec.restart.supervised or not spec.restart.boot:
        return []
    return [
        Fault(_models(spec)[placement.label].where,
              f"replica {placement.replica} has a process on each of {', '.join(placement.hosts)}, and "
              "deploy.restart.boot without a policy restarts those of one host",
              "set deploy.restart.policy: on-failure", "placement")
        for placement in placements
        if placement.pinned and len(placement.hosts) > 1
    ]  # fmt: skip


def _engine_ports(spec: ServeSpec, placements: Sequence[Placement], ports: Ports) -> list[int]:
    workers = WORKER_PORTS if ray_needed(spec, placements) else ()
    by_name = plan_engine_ports(placements, _models(spec), ports, avoiding=workers)
    return [by_name[placement.name] for placement in placements]


def _assemble(
    inputs: Inputs,
    room: _Room,
    ray: RayPlan,
    instances: tuple[InstancePlan, ...],
    fronts: tuple[tuple[RouterPlan, ...], GatePlan | None],
) -> Plan:
    """Return the plan without its scripts; `fronts` are the routers and the gate."""
    routers, gate = fronts
    spec, inventory, program = inputs.spec, inputs.inventory, inputs.program
    tolerated = {"gpus": inputs.uses_busy_gpus, "ports": "ports" in inputs.skip}
    return Plan(
        run_id=inputs.run_id,
        deployment=spec.name,
        digest=digest(inventory, spec, inputs.templates, program),
        head=inventory.head.name,
        hosts=inventory.names,
        ray=ray,
        instances=instances,
        routers=routers,
        stages=plan_stages(ray, instances, (*routers, *((gate,) if gate else ())), spec.timeouts),
        scripts={},
        gpus=_with_instances(room.users, instances),
        exclusive=tuple(kind for kind in EXCLUSIVE if not tolerated[kind]),
        restart=spec.restart,
        app=program.files if program else {},
        gate=gate,
    )


def _models(spec: ServeSpec) -> dict[str, ModelSpec]:
    return {model.label: model for model in spec.engines}


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
