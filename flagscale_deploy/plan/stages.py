"""Order the steps of a deployment, and render their scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from flagscale_deploy.config.spec import ServeSpec, Timeouts
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.entrances import SETTINGS, GatePlan, RouterPlan
from flagscale_deploy.plan.environment import host_environment, visible
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import InstancePlan, Plan, RayPlan, Stage, Step, is_restarted_as_group
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.rank import SUPERVISOR_PORT, Rank
from flagscale_deploy.remote.supervisor.boot import STOPPED

RAY_HEAD, RAY_WORKERS, RAY_NODES, SERVE, ROUTE = "ray-head", "ray-workers", "ray-nodes", "serve", "route"
START_SECONDS = 60.0
"""Seconds that starting a detached script may take; its own work has the stage's deadline."""


def plan_stages(
    ray: RayPlan, instances: Sequence[InstancePlan], fronts: Sequence[RouterPlan | GatePlan], timeouts: Timeouts
) -> tuple[Stage, ...]:
    """Return the stages: Ray's head and workers at the same time, engines when Ray is complete, then routers and gate.

    Counting Ray's nodes begins when the head has started, which takes as long as a worker's start.
    """
    stages = []
    if ray.enabled:
        workers = tuple(
            Step(node.host, "ray_worker.sh", "ray-worker", timeouts.ray) for node in ray.nodes if node.role == "worker"
        )
        stages.append(Stage(RAY_HEAD, (Step(ray.head, "ray_head.sh", "ray-head", timeouts.ray),)))
        if workers:
            stages.append(Stage(RAY_WORKERS, workers))
        stages.append(Stage(RAY_NODES, (Step(ray.head, "ray_nodes.sh", "ray-nodes", timeouts.ray),), after=(RAY_HEAD,)))
    complete = tuple(stage.name for stage in stages if stage.name != RAY_HEAD)
    engines = tuple(
        Step(
            rank.host,
            rank.script,
            "engine",
            START_SECONDS,
            detached=True,
            may_end=is_program(instance) and not instance.port,
        )
        for instance in instances
        for rank in instance.ranks
    )
    spares = tuple(
        Step(spare.host, spare.script, "spare", START_SECONDS, detached=True)
        for instance in instances
        for spare in instance.spares
    )
    stages.append(Stage(SERVE, engines + spares, after=complete))
    steps = tuple(Step(front.driver, front.script, _kind(front), START_SECONDS, detached=True) for front in fronts)
    if steps:
        stages.append(Stage(ROUTE, steps, after=(SERVE,)))
    return tuple(stages)


def render_scripts(plan: Plan, inputs: Inputs) -> Plan:
    """Return the plan with every script that its steps name, by host."""
    inventory, spec, networks = inputs.inventory, inputs.spec, inputs.networks
    scripts = _settings_files(plan)
    paths = {model.name: model.model for model in spec.models if model.model.startswith(("/", "~/"))}
    weights = _weights(plan, paths)

    def add(host: str, script: str, template: str, env: Mapping[str, str], **context: Any) -> None:
        shared = _context(plan, inventory[host], spec) | {"env": env, "program": inputs.program}
        scripts.setdefault(host, {})[script] = inputs.templates.render(template, **shared, **context)

    _add_ray_scripts(plan, inputs, weights, add)
    for instance in plan.instances:
        template = "program.sh.j2" if is_program(instance) else "vllm_serve.sh.j2"
        own = [path] if (path := paths.get(instance.model)) else []
        for rank in instance.members:
            ahead = {"packages": False, "weights": own}  # the engine loads its packages itself
            alone, group = replace(instance, ranks=(rank,)), _group(plan, inputs, instance, rank)
            add(rank.host, rank.script, template, rank.env, instance=alone, group=group, **ahead)
    for front in plan.fronts:
        router = {"router": front} if isinstance(front, RouterPlan) else {}
        add(front.driver, front.script, f"{_kind(front)}.sh.j2", front.env, gate=plan.gate, **router)
    for host in inventory.hosts:
        steps = boot_steps(plan, host.name) if plan.restart.boot else []
        if steps:
            add(host.name, "boot.sh", "boot.sh.j2", {}, steps=steps, stopped=STOPPED)
        if plan.restart.supervised and plan.restart.notify and host.name in plan.working:
            env = host_environment(spec, host, networks[host.name])
            add(host.name, "notify.sh", "notify.sh.j2", env)
        if spec.after_stop:
            env = host_environment(spec, host, networks[host.name])
            add(host.name, "after_stop.sh", "after_stop.sh.j2", env, after_stop=spec.after_stop)
    _refuse_unsupervised_spares(plan, scripts)
    return replace(plan, scripts=scripts)


def _add_ray_scripts(
    plan: Plan, inputs: Inputs, weights: Mapping[str, Sequence[str]], add: Callable[..., None]
) -> None:
    """Add what starts the nodes of Ray, and waits for them; `weights` are directories that engines load, by host.

    What is read ahead is a script by itself: where it differs, the node is the same.
    """
    inventory, spec, networks = inputs.inventory, inputs.spec, inputs.networks
    for node in plan.ray.nodes:
        env = host_environment(spec, inventory[node.host], networks[node.host])
        name = f"ray_{node.role}.sh"
        ahead = {"packages": True, "weights": weights.get(node.host, [])}
        add(
            node.host,
            name,
            f"{name}.j2",
            env | visible(node.visible_gpus),
            node=node,
            timeout=_ray_seconds(spec) if spec.restart.supervised else spec.timeouts.ray,
            **ahead,
        )
        if spec.warm:
            add(node.host, "warm.sh", "warm.sh.j2", {}, **ahead)
    expected = {node.node_ip: node.num_gpus for node in plan.ray.nodes}
    if plan.ray.enabled:
        env = host_environment(spec, inventory[plan.head], networks[plan.head])
        add(plan.head, "ray_nodes.sh", "ray_nodes.sh.j2", env, expected=expected, timeout=spec.timeouts.ray)
    for name in sorted(_waiting_for_ray(plan) - {plan.head}):
        env = host_environment(spec, inventory[name], networks[name])
        add(name, "ray_nodes.sh", "ray_nodes.sh.j2", env, expected=expected, timeout=spec.timeouts.ray)


def _kind(front: RouterPlan | GatePlan) -> Literal["router", "gate"]:
    return "router" if isinstance(front, RouterPlan) else "gate"


def _settings_files(plan: Plan) -> dict[str, dict[str, str]]:
    """Return what servers read beside their scripts, by host."""
    gate = plan.gate
    return {} if gate is None else {gate.driver: {SETTINGS: json.dumps(gate.settings, indent=1)}}


def _refuse_unsupervised_spares(plan: Plan, scripts: Mapping[str, Mapping[str, str]]) -> None:
    """Raise InputError for a template of the user's that would start the server of a spare at once."""
    spares = (spare for instance in plan.instances for spare in instance.spares)
    if any("--rank-words=" not in scripts[spare.host][spare.script] for spare in spares):
        remedy = "pass the command line to _supervise.sh.j2, or set deploy.restart.spare: false"
        raise InputError.at("vllm_serve.sh.j2", "this template starts the server of a spare at once", remedy)


def _group(plan: Plan, inputs: Inputs, instance: InstancePlan, rank: Rank) -> Mapping[str, object] | None:
    """Return how a rank's supervisor finds those of its group; None where it is not restarted, or has no other rank."""
    if not is_restarted_as_group(plan.restart, instance):
        return None
    addresses = [inputs.networks[other.host].node_ip for other in instance.members]
    path = next(model.model for model in inputs.spec.engines if model.label == instance.label)
    moved = {
        "spares": ",".join(spare.host for spare in instance.spares),
        "words": json.dumps(instance.rank_words),
        "gpus": ",".join(map(str, rank.gpus)),
        "path": path if path.startswith(("/", "~/")) else "",
    }
    return {
        "moved": moved if instance.rank_words else None,
        "rank": rank.number,
        "hosts": ",".join(other.host for other in instance.ranks),
        "address": addresses[0],
        "port": instance.ranks[0].ports[SUPERVISOR_PORT],
        "peers": ",".join(addresses),
    }


def boot_steps(plan: Plan, host: str) -> list[Step]:
    """Return what a rebooted host starts again, in order: Ray, what needs no Ray, then what waits for all of Ray.

    An instance over Ray that is supervised waits for Ray itself.
    """
    on_ray = {instance.script for instance in plan.instances if instance.executor == "ray" and instance.driver == host}
    steps = [step for stage in plan.stages for step in stage.steps if step.host == host and step.role != "ray-nodes"]
    later = [step for step in steps if step.script in on_ray]
    if later and not plan.restart.supervised:
        later.insert(
            0, Step(host, "ray_nodes.sh", "ray-nodes", next(step.timeout for step in steps if not step.detached))
        )
    return [*(step for step in steps if step.script not in on_ray), *later]


def _waiting_for_ray(plan: Plan) -> set[str]:
    """Return the hosts on which a supervisor or a boot script may wait for Ray without an operator."""
    unattended = plan.restart.supervised or plan.restart.boot
    return {instance.driver for instance in plan.instances if unattended and instance.executor == "ray"}


def _weights(plan: Plan, paths: Mapping[str, str]) -> dict[str, list[str]]:
    """Return by host the directories of weights that its engines load; `paths` are those of the models that have one.

    A model named on Hugging Face has none.
    """
    used: dict[str, dict[str, None]] = {}
    for instance in plan.instances:
        for host in instance.possible_hosts if instance.model in paths else ():
            used.setdefault(host, {})[paths[instance.model]] = None
    return {host: list(directories) for host, directories in used.items()}


def _context(plan: Plan, host: Host, spec: ServeSpec) -> dict[str, object]:
    return {
        "run_id": plan.run_id,
        "deployment": plan.deployment,
        "host": host.name,
        "ray": plan.ray,
        "ray_enabled": plan.ray.enabled,
        "warm": spec.warm,
        "venv": host.venv,
        "python": host.python,
        "before_start": before_start(spec, host),
        "restart": spec.restart if spec.restart.supervised else None,
        "ray_seconds": _ray_seconds(spec),
    }


def _ray_seconds(spec: ServeSpec) -> float:
    """Return how long what starts without an operator waits for Ray: other hosts may be booting."""
    return spec.timeouts.ready if spec.restart.boot else spec.timeouts.ray


def before_start(spec: ServeSpec, host: Host) -> str | None:
    """Return the deployment's commands, followed by the host's own."""
    return "\n".join(text for text in (spec.before_start, host.before_start) if text) or None
