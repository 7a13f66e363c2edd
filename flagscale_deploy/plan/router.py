"""vllm-router in front of a model that has more than one replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flagscale_deploy.config.spec import RouterSpec, ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.environment import host_environment
from flagscale_deploy.plan.instance import file_name
from flagscale_deploy.plan.model import InstancePlan, Network, RouterPlan, join_port
from flagscale_deploy.plan.network import LOOPBACK, public_address
from flagscale_deploy.plan.ports import Ports

PORT, PROMETHEUS_PORT = 30000, 29000
"""vllm-router's own defaults (`vllm-router --help`, 0.1.17)."""


def plan_routers(
    spec: ServeSpec, head: Host, instances: Sequence[InstancePlan], networks: Mapping[str, Network], ports: Ports
) -> tuple[RouterPlan, ...]:
    """A router on the head for each model that has several replicas, or for every model where one was asked for.

    A port that the configuration names is for the first router; each further one takes the next free.
    """
    routers: list[RouterPlan] = []
    for model in dict.fromkeys(each.model for each in instances):
        replicas = [each for each in instances if each.model == model]
        if spec.router.enabled is False or (spec.router.enabled is None and len(replicas) == 1):
            continue
        asked = spec.router.port if not routers else None
        use = f"the router of {model}"
        port = (
            ports.next_free(head.name, PORT, use)
            if asked is None
            else ports.fixed(head.name, asked, use, f"{spec.source}: deploy.router.port")
        )
        metrics = ports.next_free(head.name, PROMETHEUS_PORT, f"{use} (metrics)")
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
                env=host_environment(spec, head, network),
                endpoint=f"http://{join_port(public_address(head, network), port)}/v1",
                served_name=replicas[0].served_name,
                script=f"router_{file_name(model)}.sh",
                local_url=f"http://{join_port(LOOPBACK, port)}",
            )
        )
    return tuple(routers)


def _argv(asked: RouterSpec, port: int, metrics: int, workers: Sequence[str], ready: float) -> Iterator[str]:
    """`--worker-urls` takes all words up to the next flag, so it comes before the others."""
    yield from ("vllm-router", "--worker-urls", *workers)
    flags: dict[str, Any] = {
        "host": "0.0.0.0",
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
        elif isinstance(value, list | tuple):
            yield from (f"--{key}", *map(str, value))
        elif value not in (None, False):
            yield f"--{key}={value}"
