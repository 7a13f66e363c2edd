"""A plan is a value: what `plan` prints is the very object that `run` carries out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from flagscale_deploy.config.spec import RestartSpec

Exclusive = Literal["gpus", "ports"]
EXCLUSIVE: tuple[Exclusive, ...] = ("gpus", "ports")
Role = Literal["ray-head", "ray-worker", "ray-nodes", "engine", "router"]
Executor = Literal["uni", "mp", "ray", "external_launcher"]


@dataclass(frozen=True)
class Placement:
    """Where one instance goes: GPU indexes by host, in rank order of hosts; `driver` runs `vllm serve`.

    `pinned`: on GPUs of one host that Ray is not told about. Otherwise Ray hands out its GPUs.
    """

    model: str
    replica: int
    gpus: Mapping[str, tuple[int, ...]]
    driver: str
    executor: Executor
    pinned: bool

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self.gpus)


@dataclass(frozen=True)
class Network:
    """The address other nodes know a host by, and the interface that holds it (None: not known before a probe)."""

    node_ip: str
    interface: str | None = None
    resolver_hangs: bool = False
    """Whether the probe saw that its DNS does not answer in time."""


@dataclass(frozen=True)
class RayNode:
    """One `ray start`. `visible_gpus` is None where Ray may see all of the host's GPUs."""

    host: str
    role: Literal["head", "worker"]
    node_ip: str
    num_gpus: int
    num_cpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    visible_gpus: tuple[int, ...] | None = None
    agent_port: int = 52365


@dataclass(frozen=True)
class RayPlan:
    """The Ray cluster. `session` names its temporary directory, `/tmp/fsd-<uid>-<session>` on each host."""

    enabled: bool
    head: str
    head_ip: str
    port: int
    session: str
    nodes: tuple[RayNode, ...] = ()
    dashboard: bool = True
    dashboard_port: int = 8265
    client_port: int = 10001

    @property
    def address(self) -> str:
        return join_port(self.head_ip, self.port)


@dataclass(frozen=True)
class InstancePlan:
    """One `vllm serve`: `argv` as the process will see it, `env` without secrets, `endpoint` for clients (`…/v1`).

    Or, with the engine "program", a program of the user's own: its `argv` has paths below the state directory, `port`
    is None and `endpoint` "" where it answers nowhere, and `served_name`, `local_url` and `worker_url` are "".
    """

    model: str
    replica: int
    engine: str
    hosts: tuple[str, ...]
    driver: str
    gpus: Mapping[str, tuple[int, ...]]
    executor: Executor
    port: int | None
    argv: tuple[str, ...]
    env: Mapping[str, str]
    endpoint: str
    served_name: str
    script: str
    local_url: str
    """Where the driver host itself reaches the server, for readiness."""
    worker_url: str
    """Where a router reaches it, over the data network."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Of a program: where its driver's host may reach it, with the endpoint that clients know that place by."""

    @property
    def name(self) -> str:
        return f"{self.model}/{self.replica}"

    @property
    def certificate(self) -> str | None:
        """The file of the certificate that it serves TLS with, on its driver; None where it speaks plain HTTP."""
        return flag_of(self.argv, "ssl-certfile")


@dataclass(frozen=True)
class RouterPlan:
    """One vllm-router, in front of the replicas of a model; `workers` are their URLs."""

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
    """vllm-router 0.1.17 has no flag to serve TLS itself."""

    @property
    def name(self) -> str:
        return f"{self.model}/router"


class OfModel(Protocol):
    """What serves a model."""

    @property
    def model(self) -> str: ...


AnyInstance = TypeVar("AnyInstance", bound=OfModel)
AnyRouter = TypeVar("AnyRouter", bound=OfModel)
Server = InstancePlan | RouterPlan
"""What answers completions: it is started, waited for, watched, logged and stopped in the same way."""


@dataclass(frozen=True)
class Step:
    """One script on one host; seconds until it counts as hung; `detached` ones go on running after it."""

    host: str
    script: str
    role: Role
    timeout: float
    detached: bool = False
    may_end: bool = False
    """Of a detached one: whether it has done its work when it ends with status 0."""


@dataclass(frozen=True)
class Stage:
    """Steps that run at the same time, once the stages named in `after` are done."""

    name: str
    steps: tuple[Step, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything `run` will do. `digest` is the same for the same hosts, configuration and templates."""

    run_id: str
    deployment: str
    digest: str
    head: str
    hosts: tuple[str, ...]
    ray: RayPlan
    instances: tuple[InstancePlan, ...]
    routers: tuple[RouterPlan, ...]
    stages: tuple[Stage, ...]
    scripts: Mapping[str, Mapping[str, str]]
    gpus: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Who has each GPU of each host: an instance by name, somebody else in words, or "" for nobody."""
    exclusive: tuple[Exclusive, ...] = EXCLUSIVE
    """What of it nobody else may have when it starts; without GPUs where busy ones were handed out on purpose."""
    restart: RestartSpec = field(default_factory=RestartSpec)
    app: Mapping[str, str] = field(default_factory=dict)
    """Files of a program of the user's own, by path below `app/` of every host's state directory."""

    @property
    def working(self) -> tuple[str, ...]:
        """The hosts that something runs on, in the inventory's order."""
        steps = {step.host for stage in self.stages for step in stage.steps}
        ranks = {host for each in self.instances for host in each.hosts}
        return tuple(name for name in self.hosts if name in steps | ranks)

    @property
    def servers(self) -> tuple[Server, ...]:
        return (*self.instances, *self.routers)

    @property
    def entrances(self) -> tuple[Server, ...]:
        """What clients talk to: a model's router, else its instances."""
        return entrances(self.instances, self.routers)


def entrances(instances: Iterable[AnyInstance], routers: Sequence[AnyRouter]) -> tuple[AnyInstance | AnyRouter, ...]:
    """Return what clients talk to: a model's router, else its instances."""
    routed = {router.model for router in routers}
    return (*routers, *(instance for instance in instances if instance.model not in routed))


def join_port(address: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def flag_of(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag on a command line, `--name=value`: the last one counts."""
    given = [word.partition("=")[2] for word in argv if word.startswith(f"--{name}=")]
    return given[-1] if given else None
