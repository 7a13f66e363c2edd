"""Plan a vllm-router in front of a model with more than one replica, or with pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from flagscale_deploy.config.spec import ModelSpec, PoolRole, RouterSpec, ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.entrances import RouterPlan
from flagscale_deploy.plan.environment import host_environment
from flagscale_deploy.plan.instance import bound_address, file_name
from flagscale_deploy.plan.model import InstancePlan, Network, Placement, join_port
from flagscale_deploy.plan.network import LOOPBACK, is_loopback, public_address
from flagscale_deploy.plan.pools import connector
from flagscale_deploy.plan.ports import Ports
from flagscale_deploy.plan.rank import flag_of
from flagscale_deploy.plan.tls import router_trust

POLICY, POOLS_POLICY = "cache_aware", "round_robin"
PORT, PROMETHEUS_PORT = 30000, 29000
"""vllm-router's own defaults (`vllm-router --help`, 0.1.17)."""

REPEATED = frozenset({"kv-event-source", "kv-event-replay-source", "wasm-middleware-route"})
"""Flags of vllm-router that are repeated for each value (same source); other lists are one flag with many words."""


def plan_routers(
    spec: ServeSpec,
    head: Host,
    instances: Sequence[InstancePlan],
    networks: Mapping[str, Network],
    ports: Ports,
    facts: Facts | None,
    faults: list[Fault],
) -> tuple[RouterPlan, ...]:
    """Return a router on the head for each model with several API servers, or for all models if configured.

    A configured port is for the first router; each further one takes the next free port. A replica that the router
    cannot reach is a fault. `facts` are the head's, None if it was not contacted.
    """
    routers: list[RouterPlan] = []
    models = {model.name: model for model in spec.models}
    for model in routed_models(spec, instances):
        replicas = [instance for instance in instances if instance.model == model]
        faults += unreachable(spec, head, replicas, "router", "deploy.router: none")
        port, metrics = _ports(spec, head, model, ports, first=not routers)
        workers = tuple(rank.worker_url for replica in replicas for rank in replica.ranks if rank.answers)
        pools = models[model].pools if model in models else {}
        bound = spec.router.host or (LOOPBACK if spec.gate is not None else None)
        router = replace(spec.router, policy=spec.router.policy or (POOLS_POLICY if pools else POLICY), host=bound)
        network = networks[head.name]
        routers.append(
            RouterPlan(
                model=model,
                driver=head.name,
                policy=str(router.policy),
                port=port,
                metrics_port=metrics,
                workers=workers,
                argv=tuple(
                    _argv(
                        router,
                        port,
                        metrics,
                        _behind(replicas, pools),
                        spec.timeouts.ready,
                        _ranks_behind_each(replicas),
                    )
                ),
                env=_trusting(router_trust(spec, head.name, facts, replicas)) | host_environment(spec, head, network),
                endpoint=f"http://{join_port(public_address(head, network, bound), port)}/v1",
                served_name=replicas[0].served_name,
                script=f"router_{file_name(model)}.sh",
                local_url=f"http://{join_port(bound_address(bound, LOOPBACK), port)}",
            )
        )
    return tuple(routers)


def routed_models(spec: ServeSpec, replicas: Sequence[InstancePlan | Placement]) -> list[str]:
    """Return the models that get a router, in their order."""
    count: Counter[str] = Counter()
    for replica in replicas:
        count[replica.model] += replica.api_servers
    if spec.router.enabled is not None:
        return list(count) if spec.router.enabled else []
    return [model for model, servers in count.items() if servers > 1]


def router_use(model: str) -> str:
    """Return the name of a model's router in messages about its port."""
    return f"the router of {model}"


def _ports(spec: ServeSpec, head: Host, model: str, ports: Ports, *, first: bool) -> tuple[int, int]:
    """Return the router's port, and the one for its metrics."""
    use = router_use(model)
    configured = (spec.router.port, spec.router.metrics_port) if first else (None, None)
    port = (
        ports.next_free(head.name, PORT, use)
        if configured[0] is None
        else ports.fixed(head.name, configured[0], use, spec.where("deploy", "router", "port"))
    )
    metrics = (
        ports.next_free(head.name, PROMETHEUS_PORT, f"{use} (metrics)")
        if configured[1] is None
        else ports.fixed(
            head.name, configured[1], f"{use} (metrics)", spec.where("deploy", "router", "prometheus_port")
        )
    )
    return port, metrics


def unreachable(
    spec: ServeSpec, head: Host, replicas: Sequence[InstancePlan], front: str, none: str
) -> Iterator[Fault]:
    """Yield replicas that listen on their own host only, which a front on another host cannot reach."""
    models = {model.label: model for model in spec.engines}
    for replica in replicas:
        model = models[replica.label]
        bound = str(model.engine_args.get("host") or "")
        for rank in replica.ranks:
            if rank.answers and rank.host != head.name and is_loopback(bound):
                yield Fault(
                    model.place("host"),
                    f"{replica.name} on {rank.host} listens on {bound} only, so the {front} on {head.name} "
                    "cannot reach it",
                    f"remove host, or set it to 0.0.0.0; or use no {front}: {none}",
                    "ports",
                    rank.host,
                )


def _trusting(path: str | None) -> dict[str, str]:
    """Return the variables that make a router trust a CA file, by default the system's.

    vllm-router 0.1.17 has no flag for it, but reads OpenSSL's variable. A self-signed certificate is accepted there; of
    a certificate that a CA signed, only the CA's own (measured).
    """
    return {} if path is None else {"SSL_CERT_FILE": path}


def _ranks_behind_each(replicas: Sequence[InstancePlan]) -> int:
    """Return how many data-parallel ranks each API server of a group with several of them has; 1 for other groups."""
    local = [flag_of(rank.argv, "data-parallel-size-local") for replica in replicas if replica.api_servers > 1
             for rank in replica.ranks]  # fmt: skip
    return int(local[0] or 1) if local else 1


def _behind(replicas: Sequence[InstancePlan], pools: Mapping[PoolRole, ModelSpec]) -> Iterator[str]:
    """Yield the flags that name the servers behind a router."""
    urls = [(replica.pool, rank.worker_url) for replica in replicas for rank in replica.ranks if rank.answers]
    if pools:
        yield "--vllm-pd-disaggregation"
        yield from (f"--{pool}={url}" for pool, url in urls)
        yield f"--kv-connector={connector(pools['decode'])}"
    else:
        yield from ("--worker-urls", *(url for _, url in urls))


def _argv(
    router: RouterSpec, port: int, metrics: int, behind: Iterable[str], ready: float, ranks: int
) -> Iterator[str]:
    """Yield the command line; `--worker-urls` takes all words up to the next flag, so it comes before the others."""
    yield from ("vllm-router", *behind)
    flags: dict[str, object] = {
        "host": router.host or "0.0.0.0",
        "port": port,
        "policy": router.policy,
        "prometheus-port": metrics,
        "worker-startup-timeout-secs": int(ready),
        "worker-startup-check-interval": 1,
        "intra-node-data-parallel-size": ranks if ranks > 1 else None,
        **router.options,
    }
    for key, value in flags.items():
        if value is True:
            yield f"--{key}"
        elif isinstance(value, list | tuple) and key in REPEATED:
            yield from (f"--{key}={item}" for item in value)
        elif isinstance(value, list | tuple):
            yield from (f"--{key}", *map(str, value))
        elif value not in (None, False):
            yield f"--{key}={value}"
