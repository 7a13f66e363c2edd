"""What stands before instances: routers and the gate; and which servers of a deployment clients connect to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flagscale_deploy.plan.rank import API_PORT, METRICS_PORT, Rank

GATE = "gate"
"""The gate's name; no other server's name is without a slash."""
FRONTS = ("router", GATE)
"""Engines of what stands before instances, as a run's description has them."""
SETTINGS = "gate.json"
"""The file beside its script that it reads."""


class OfModel(Protocol):
    """A server of a model."""

    @property
    def name(self) -> str:
        """Return the server's name."""

    @property
    def model(self) -> str:
        """Return the model's name."""


AnyInstance = TypeVar("AnyInstance", bound=OfModel)
AnyFront = TypeVar("AnyFront", bound=OfModel)


def entrances(instances: Iterable[AnyInstance], fronts: Sequence[AnyFront]) -> tuple[AnyInstance | AnyFront, ...]:
    """Return the servers that clients connect to: the gate, else a model's router, else its instances."""
    gate = tuple(front for front in fronts if front.name == GATE)
    routed = {front.model for front in fronts}
    return gate or (*fronts, *(instance for instance in instances if instance.model not in routed))


@dataclass(frozen=True)
class RouterPlan:
    """A vllm-router in front of the replicas of a model; `workers` are their URLs."""

    model: str
    driver: str
    policy: str
    port: int
    metrics_port: int
    workers: tuple[str, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    endpoint: str
    served_name: str
    script: str
    local_url: str
    certificate: None = None
    """None: vllm-router 0.1.17 cannot serve TLS itself."""

    @property
    def name(self) -> str:
        """Return the router's name, `model/router`."""
        return f"{self.model}/router"

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Return the router as a group of one."""
        return (_rank(self),)


@dataclass(frozen=True)
class GatePlan:
    """The proxy before all servers of a deployment.

    `models` are the addresses to which it passes requests on, by every name of a model; `served_name` is the first.
    `host` is the address that it listens on, `guarded` whether it asks for a key, `certificate` a path on its host
    (None for plain HTTP). `settings` is the file that it reads.
    """

    driver: str
    host: str
    port: int
    metrics_port: int
    models: Mapping[str, tuple[str, ...]]
    guarded: bool
    settings: Mapping[str, object]
    env: Mapping[str, str]
    endpoint: str
    served_name: str
    local_url: str
    certificate: str | None = None
    trust: str | None = None
    """The CA file by which it trusts its servers; None for the system's authorities."""
    argv: tuple[str, ...] = ("python3", "gate", f"scripts/{SETTINGS}")
    script: str = "gate.sh"
    name: str = GATE
    model: str = ""

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Return the gate as a group of one."""
        return (_rank(self),)


def _rank(front: RouterPlan | GatePlan) -> Rank:
    ports = {API_PORT: front.port, METRICS_PORT: front.metrics_port}
    own = (front.argv, front.env, front.script, ports, front.local_url)
    return Rank(front.name, 0, "driver", front.driver, (), *own)
