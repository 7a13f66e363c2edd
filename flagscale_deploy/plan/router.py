"""vllm-router in front of a model that has more than one replica."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flagscale_deploy.config.spec import RouterSpec, ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.environment import host_environment
from flagscale_deploy.plan.instance import bound_address, file_name
from flagscale_deploy.plan.model import InstancePlan, Network, Placement, RouterPlan, join_port
from flagscale_deploy.plan.network import LOOPBACK, is_loopback, public_address
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.tls import router_trust

PORT, PROMETHEUS_PORT = 30000, 29000
"""vllm-router's own defaults (`vllm-router --help`, 0.1.17)."""

REPEATED = frozenset({"kv-event-source", "kv-event-replay-source", "wasm-middleware-route"})
"""Its flags that are given once for each value (same source); of the others a list is one flag with many words."""


def plan_routers(
    spec: ServeSpec,
    head: Host,
    instances: Sequence[InstancePlan],
    networks: Mapping[str, Network],
    ports: Ports,
    facts: Facts | None,
    faults: list[Fault],
) -> tuple[RouterPlan, ...]:
    """A router on the head for each model that has several replicas, or for every model where one was asked for.

    A port that the configuration names is for the first router; each further one takes the next free.
    A replica that the router could not reach is a fault. `facts` are the head's, None where it was not contacted.
    """
    routers: list[RouterPlan] = []
    for model in routed_models(spec, instances):
        replicas = [each for each in instances if each.model == model]
        faults += _unreachable(spec, head, replicas)
        port, metrics = _ports(spec, head, model, ports, first=not routers)
        workers = tuple(each.worker_url for each in replicas)
        network = networks[head.name]
        routers.append(
            RouterPlan(
                model=model,
                driver=head.name,
                policy=spec.router.policy,
                port=port,
                metrics_port=metrics,
                workers=workers,
                argv=tuple(_argv(spec.router, port, metrics, workers, spec.timeouts.ready)),
                env=_trusting(router_trust(spec, head.name, facts, replicas)) | host_environment(spec, head, network),
                endpoint=f"http://{join_port(public_address(head, network, spec.router.host), port)}/v1",
                served_name=replicas[0].served_name,
                script=f"router_{file_name(model)}.sh",
                local_url=f"http://{join_port(bound_address(spec.router.host, LOOPBACK), port)}",
            )
        )
    return tuple(routers)


def routed_models(spec: ServeSpec, replicas: Sequence[InstancePlan | Placement]) -> list[str]:
    """The models that get a router, in their order."""
    count = Counter(each.model for each in replicas)
    if spec.router.enabled is not None:
        return list(count) if spec.router.enabled else []
    return [model for model, copies in count.items() if copies > 1]


def router_use(model: str) -> str:
    """What a model's router is called where its port is spoken of."""
    return f"the router of {model}"


def _ports(spec: ServeSpec, head: Host, model: str, ports: Ports, *, first: bool) -> tuple[int, int]:
    """Its port, and the one of its metrics."""
    use, where = router_use(model), f"{spec.source}: deploy.router"
    asked = (spec.router.port, spec.router.metrics_port) if first else (None, None)
    port = (
        ports.next_free(head.name, PORT, use)
        if asked[0] is None
        else ports.fixed(head.name, asked[0], use, f"{where}.port")
    )
    metrics = (
        ports.next_free(head.name, PROMETHEUS_PORT, f"{use} (metrics)")
        if asked[1] is None
        else ports.fixed(head.name, asked[1], f"{use} (metrics)", f"{where}.prometheus_port")
    )
    return port, metrics


def _unreachable(spec: ServeSpec, head: Host, replicas: Sequence[InstancePlan]) -> Iterator[Fault]:
    """A replica that listens on its own host alone cannot be behind a router on another."""
    models = {model.name: model for model in spec.models}
    for each in replicas:
        model = models[each.model]
        bound = str(model.engine_args.get("host") or "")
        if each.driver != head.name and is_loopback(bound):
            yield Fault(
                f"{model.where}.host",
                f"{each.name} on {each.driver} listens on {bound} only, where the router on {head.name} "
                "cannot reach it",
                "leave host out, or write 0.0.0.0; or leave the router out: deploy.router: none",
                "ports",
                each.driver,
            )


def _trusting(path: str | None) -> dict[str, str]:
    """vllm-router 0.1.17 has no flag for it: it knows the system's authorities, or those of OpenSSL's variable instead.
    A certificate that vouches for itself is taken there; one of an authority is not, only the authority (measured)."""
    return {} if path is None else {"SSL_CERT_FILE": path}


def _argv(asked: RouterSpec, port: int, metrics: int, workers: Sequence[str], ready: float) -> Iterator[str]:
    """`--worker-urls` takes all words up to the next flag, so it comes before the others."""
    yield from ("vllm-router", "--worker-urls", *workers)
    flags: dict[str, Any] = {
        "host": asked.host or "0.0.0.0",
        "port": port,
        "policy": asked.policy,
        "prometheus-port": metrics,
        "worker-startup-timeout-secs": int(ready),
        "worker-startup-check-interval": 1,
        **asked.options,
    }
    for key, value in flags.items():
        if value is True:
            yield f"--{key}"
        elif isinstance(value, list | tuple) and key in REPEATED:
            yield from (f"--{key}={each}" for each in value)
        elif isinstance(value, list | tuple):
            yield from (f"--{key}", *map(str, value))
        elif value not in (None, False):
            yield f"--{key}={value}"
