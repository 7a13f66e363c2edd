"""Write the plan for other programs (`plan --json`); its shape is versioned by `schema`."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.plan.entrances import GatePlan, RouterPlan
from flagscale_deploy.plan.model import InstancePlan, Plan, RayPlan
from flagscale_deploy.plan.rank import Rank
from flagscale_deploy.plan.versions import needed_vllm
from flagscale_deploy.support.digest import digest_of

SCHEMA = 2


def plan_json(plan: Plan) -> dict[str, object]:
    """Return the published shape of a plan: JSON types only, nothing secret."""
    return {
        "schema": SCHEMA,
        "deployment": plan.deployment,
        "run_id": plan.run_id,
        "digest": plan.digest,
        "hosts": list(plan.hosts),
        "ray": _ray(plan.ray),
        "instances": [_instance(instance) for instance in plan.instances],
        "program": {"files": _program(plan.app)} if plan.app else None,
        "router": _router(plan.routers[0]) if plan.routers else None,
        "routers": [_router(router) for router in plan.routers],
        "gate": _gate(plan.gate) if plan.gate else None,
        "restart": _restart(plan.restart),
        "stages": [
            {
                "name": stage.name,
                "after": list(stage.after),
                "steps": [{"host": step.host, "script": step.script} for step in stage.steps],
            }
            for stage in plan.stages
        ],
        "scripts": {host: dict(scripts) for host, scripts in plan.scripts.items()},
    }


def _restart(restart: RestartSpec) -> dict[str, object]:
    """Return the restart policy with the keys of the serve YAML."""
    return {
        "policy": restart.policy,
        "max": restart.maximum,
        "backoff": {"first": restart.first, "factor": restart.factor, "max": restart.ceiling},
        "reset_after": restart.reset_after,
        "boot": restart.boot,
        "lost": restart.lost,
        "spare": restart.spare,
        "hang": restart.hang,
        "interval": restart.interval,
        "notify": restart.notify,
    }


def _ray(ray: RayPlan) -> dict[str, object]:
    return {
        "enabled": ray.enabled,
        "head": ray.head,
        "port": ray.port,
        "nodes": [
            {
                "host": node.host,
                "role": node.role,
                "node_ip": node.node_ip,
                "num_gpus": node.num_gpus,
                "num_cpus": node.num_cpus,
                "resources": dict(node.resources),
            }
            for node in ray.nodes
        ],
    }


def _instance(instance: InstancePlan) -> dict[str, object]:
    need = needed_vllm(instance.ranks)
    return {
        "model": instance.model,
        "replica": instance.replica,
        "pool": instance.pool,
        "engine": instance.engine,
        "hosts": list(instance.hosts),
        "driver": instance.driver,
        "gpus": {host: list(indexes) for host, indexes in instance.gpus.items()},
        "executor": instance.executor,
        "needs_vllm": need.version if need else None,
        "port": instance.port,
        "argv": list(instance.argv),
        "env": dict(instance.env),
        "endpoint": instance.endpoint,
        "served_name": instance.served_name,
        "ranks": [_rank(rank) for rank in instance.ranks],
        "spares": [_rank(spare) for spare in instance.spares],
    }


def _rank(rank: Rank) -> dict[str, object]:
    return {"number": rank.number, **rank.start, "script": rank.script}


def _program(app: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each of the user's files that go to every host, by name."""
    own = {name.partition("/")[2]: text for name, text in app.items() if name.startswith("program/")}
    return {name: digest_of(text) for name, text in own.items()}


def _router(router: RouterPlan) -> dict[str, object]:
    return {
        "model": router.model,
        "host": router.driver,
        "policy": router.policy,
        "port": router.port,
        "workers": list(router.workers),
        "argv": list(router.argv),
        "env": dict(router.env),
        "endpoint": router.endpoint,
    }


def _gate(gate: GatePlan) -> dict[str, object]:
    return {
        "host": gate.driver,
        "port": gate.port,
        "metrics_port": gate.metrics_port,
        "models": {name: list(urls) for name, urls in gate.models.items()},
        "guarded": gate.guarded,
        "env": dict(gate.env),
        "endpoint": gate.endpoint,
    }
