"""Plan the gate: the proxy on the head that all clients go through (`deploy.gate`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from flagscale_deploy.config.gate import KEY_VARIABLE, GateSpec
from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.entrances import GatePlan, RouterPlan
from flagscale_deploy.plan.environment import host_environment
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.instance import bound_address
from flagscale_deploy.plan.model import InstancePlan, join_port
from flagscale_deploy.plan.network import LOOPBACK, public_address
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.router import unreachable
from flagscale_deploy.plan.tls import file_on, router_trust, state_file
from flagscale_deploy.support.value import Value

PORT, METRICS_PORT = 8080, 8081
"""Next to vLLM's 8000, and free of what else a deployment takes: vllm-router has 30000 and 29000, Ray 6379 and 8265."""
PATHS = ("/v1/*", "/health", "/version")
CLIENT_KEYS, INTERNAL_KEY = "secrets/gate-keys.json", "secrets/internal-key"
"""Files in the state directory of its host: the keys of clients, and the key that engines ask for."""


def plan_gate(
    inputs: Inputs, instances: Sequence[InstancePlan], routers: Sequence[RouterPlan], ports: Ports, faults: list[Fault]
) -> GatePlan | None:
    """Return the gate on the head, where the configuration asks for one; a server that it cannot reach is a fault."""
    spec, head = inputs.spec, inputs.inventory.head
    gate = spec.gate
    if gate is None:
        return None
    routed = {router.model for router in routers}
    direct = [instance for instance in instances if instance.model not in routed]
    faults += unreachable(spec, head, direct, "gate", "deploy.gate: false")
    port, metrics = _ports(spec, gate, head, ports)
    network, facts, tls = inputs.networks[head.name], inputs.facts.get(head.name), spec.tls
    urls = _urls(direct, routers)
    models = {name: urls[model.name] for model in spec.models if model.name in urls for name in names_of(model)}
    scheme = "http" if tls is None else "https"
    plan = GatePlan(
        driver=head.name,
        host=gate.host or "0.0.0.0",
        port=port,
        metrics_port=metrics,
        models=models,
        guarded=bool(gate.keys) or KEY_VARIABLE in {**spec.secret_env, **head.secret_env},
        settings={},
        env=host_environment(spec, head, network),
        endpoint=f"{scheme}://{join_port(public_address(head, network, gate.host), port)}/v1",
        served_name=next((instance.served_name for instance in instances), ""),
        local_url=f"{scheme}://{join_port(bound_address(gate.host, LOOPBACK), port)}",
        certificate=None if tls is None else file_on(spec, tls, tls.certfile, head.name, facts),
        trust=router_trust(spec, head.name, facts, direct),
    )
    return replace(plan, settings=_settings(plan, inputs.run_id, spec, facts))


def _ports(spec: ServeSpec, gate: GateSpec, head: Host, ports: Ports) -> Iterator[int]:
    """Yield the gate's port, and the one for its metrics."""
    for number, first, use, key in _uses(gate):
        where = spec.where("deploy", "gate", key)
        yield ports.next_free(head.name, first, use) if number is None else ports.fixed(head.name, number, use, where)


def take_asked_ports(spec: ServeSpec, head: Host, ports: Ports) -> None:
    """Take those ports of the gate that the configuration names."""
    for number, _, use, key in _uses(spec.gate) if spec.gate is not None else ():
        if number is not None:
            ports.fixed(head.name, number, use, spec.where("deploy", "gate", key))


def _uses(gate: GateSpec) -> tuple[tuple[int | None, int, str, str], ...]:
    """Return of each port: the configured one, the first to try otherwise, what it is for, and its key."""
    metrics = (gate.metrics_port, METRICS_PORT, "the gate (metrics)", "prometheus_port")
    return (gate.port, PORT, "the gate", "port"), metrics


def gate_faults(spec: ServeSpec) -> Iterator[Fault]:
    """Yield models with a name that an earlier one has: requests for it could go to either."""
    owners: dict[str, str] = {}
    for model in spec.models if spec.gate is not None else ():
        for name in names_of(model):
            owner = owners.setdefault(name, model.name)
            if owner != model.name:
                problem = f"{name} is a name of {owner} too, and the gate chooses a server by it"
                yield Fault(model.place("served-model-name"), problem, "give each model a served-model-name of its own")


def names_of(model: ModelSpec) -> list[str]:
    """Return every name that a request may have for a model: its own ones, and those of its LoRA adapters."""
    served = _texts(model.engine_args.get("served-model-name")) or [model.model]
    return list(dict.fromkeys([*served, *map(_adapter, _texts(model.engine_args.get("lora-modules")))]))


def _texts(value: Value) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [] if value in (None, "") else [value]
    return [json.dumps(item) if isinstance(item, dict) else str(item) for item in values]


def _adapter(module: str) -> str:
    """Return the name in `NAME=PATH`, or in JSON."""
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(module)["name"])
    return module.partition("=")[0]


def _urls(direct: Sequence[InstancePlan], routers: Sequence[RouterPlan]) -> dict[str, tuple[str, ...]]:
    """Return where requests for a model go: to its router, or to its API servers."""
    urls: dict[str, tuple[str, ...]] = {router.model: (router.local_url,) for router in routers}
    for instance in direct:
        servers = tuple(rank.worker_url for rank in instance.ranks if rank.answers)
        urls[instance.model] = (*urls.get(instance.model, ()), *servers)
    return urls


def _settings(plan: GatePlan, run_id: str, spec: ServeSpec, facts: Facts | None) -> Mapping[str, object]:
    """Return the file that the gate reads, without what has its default."""
    assert spec.gate is not None, "there is a gate"
    settings = {
        "deployment": spec.name,
        "run_id": run_id,
        "host": plan.host,
        "port": plan.port,
        "metrics_port": plan.metrics_port,
        "models": {name: list(urls) for name, urls in plan.models.items()},
        "paths": [*PATHS, *spec.gate.paths],
        "keys": state_file(spec, plan.driver, facts, CLIENT_KEYS) if plan.guarded else None,
        "internal_key": state_file(spec, plan.driver, facts, INTERNAL_KEY),
        "tls": _tls(plan, spec, facts),
        "trust": plan.trust,
        "hold": spec.gate.hold,
        "access_log": state_file(spec, plan.driver, facts, "logs/gate_access.log"),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _tls(plan: GatePlan, spec: ServeSpec, facts: Facts | None) -> dict[str, str] | None:
    """Return certificate and key of the gate; a certificate may hold its key."""
    if spec.tls is None or plan.certificate is None:
        return None
    key = spec.tls.keyfile
    return {
        "certfile": plan.certificate,
        "keyfile": plan.certificate if key is None else file_on(spec, spec.tls, key, plan.driver, facts),
    }
