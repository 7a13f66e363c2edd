"""Define the plan: what `plan` prints is exactly the object that `run` carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import join_label
from flagscale_deploy.plan.entrances import GATE, GatePlan, RouterPlan, entrances
from flagscale_deploy.plan.rank import API_PORT, Rank

Exclusive = Literal["gpus", "ports"]
EXCLUSIVE: tuple[Exclusive, ...] = ("gpus", "ports")
Role = Literal["ray-head", "ray-worker", "ray-nodes", "engine", "spare", "router", "gate"]
Executor = Literal["uni", "mp", "ray", "external_launcher"]
Spread = Literal["one-host", "ray", "mp", "data-parallel", "data-parallel-hybrid", "data-parallel-ray"]
"""How an instance spreads over hosts: not at all, by Ray, by vLLM's multiprocessing backend, or its data-parallel ranks
behind one API server, behind one on each host (hybrid), or started by Ray."""


class _Replica:
    """Names of a replica of a model, or of one of its pools (`pool`, else "")."""

    model: str
    replica: int
    pool: str

    @property
    def label(self) -> str:
        """Return the model's name, `model/pool` in a pool."""
        return join_label(self.model, self.pool)

    @property
    def name(self) -> str:
        """Return the instance's name, `model/replica` or `model/pool/replica`."""
        return f"{self.label}/{self.replica}"


@dataclass(frozen=True)
class Placement(_Replica):
    """Where one instance runs: GPU indexes by host, in rank order of hosts; `driver` runs `vllm serve`.

    `pinned`: on GPUs that Ray does not manage; otherwise Ray assigns them.
    """

    model: str
    replica: int
    gpus: Mapping[str, tuple[int, ...]]
    driver: str
    executor: Executor
    pinned: bool
    spread: Spread = "one-host"
    pool: str = ""
    spares: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Hosts that may carry a rank of another one that is lost, with the GPUs that it would have there."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the hosts in rank order."""
        return tuple(self.gpus)

    @property
    def api_servers(self) -> int:
        """Return how many of its ranks answer clients."""
        return len(self.gpus) if self.spread == "data-parallel-hybrid" else 1


@dataclass(frozen=True)
class Network:
    """The address by which other nodes know a host, and its interface (None: unknown without a probe)."""

    node_ip: str
    interface: str | None = None
    resolver_hangs: bool = False
    """Whether its DNS did not answer the probe in time."""


@dataclass(frozen=True)
class RayNode:
    """A `ray start` on a host. `visible_gpus` is None where Ray may see all of the host's GPUs."""

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
        """Return the address of Ray's head, with its port."""
        return join_port(self.head_ip, self.port)


@dataclass(frozen=True)
class InstancePlan(_Replica):
    """One replica of a model: a group of ranks, the driver first, and the `endpoint` for clients (`…/v1`).

    With the engine "program", it is a program of the user's own: its `argv` has paths below the state directory, `port`
    is None and `endpoint` "" if it serves nothing, and `served_name` and `local_url` are "". Ray starts
    the processes of an instance on other hosts itself, so such an instance is a group of one.
    """

    model: str
    replica: int
    engine: str
    gpus: Mapping[str, tuple[int, ...]]
    executor: Executor
    ranks: tuple[Rank, ...]
    endpoint: str
    served_name: str
    addresses: Mapping[str, str] = field(default_factory=dict)
    """For a program: addresses at which its driver's host may reach it, each with the endpoint for clients."""
    pool: str = ""
    spares: tuple[Rank, ...] = ()
    """What stands by on further hosts for a rank that is not the driver, each with the command line of the first."""
    rank_words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """What only one of these ranks has in its command line, by rank; {} where none is moved."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return its hosts in rank order."""
        return tuple(self.gpus)

    @property
    def members(self) -> tuple[Rank, ...]:
        """Return its ranks, and behind them its spares."""
        return (*self.ranks, *self.spares)

    @property
    def possible_hosts(self) -> tuple[str, ...]:
        """Return its hosts, and those of its spares."""
        return (*self.hosts, *(spare.host for spare in self.spares))

    @property
    def driver(self) -> str:
        """Return the host of its first rank."""
        return self.ranks[0].host

    @property
    def port(self) -> int | None:
        """Return the port that its first rank serves at."""
        return self.ranks[0].ports.get(API_PORT)

    @property
    def argv(self) -> tuple[str, ...]:
        """Return the command line of its first rank."""
        return self.ranks[0].argv

    @property
    def env(self) -> Mapping[str, str]:
        """Return the environment of its first rank."""
        return self.ranks[0].env

    @property
    def script(self) -> str:
        """Return the script of its first rank."""
        return self.ranks[0].script

    @property
    def local_url(self) -> str:
        """Return the address of its first rank on its host."""
        return self.ranks[0].local_url

    @property
    def api_servers(self) -> int:
        """Return how many of its ranks answer clients."""
        return sum(rank.answers for rank in self.ranks)

    @property
    def certificate(self) -> str | None:
        """Return the path of the server's TLS certificate on its driver; None for plain HTTP."""
        return self.ranks[0].certificate


def is_restarted_as_group(restart: RestartSpec, instance: InstancePlan) -> bool:
    """Return whether the supervisors of an instance's ranks agree on its restarts."""
    return restart.supervised and len(instance.ranks) > 1


Server = InstancePlan | RouterPlan | GatePlan
"""A process that serves completions: started, waited for, watched, logged and stopped in the same way."""


@dataclass(frozen=True)
class Step:
    """A script on a host, with seconds until it counts as hung; `detached` ones keep running after the step."""

    host: str
    script: str
    role: Role
    timeout: float
    detached: bool = False
    may_end: bool = False
    """For a detached script: whether it has done its work when it ends with status 0."""


@dataclass(frozen=True)
class Stage:
    """Steps that run at the same time, once the stages named in `after` are done."""

    name: str
    steps: tuple[Step, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that `run` will do. `digest` is the same for the same hosts, configuration and templates."""

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
    """Who uses each GPU of each host: an instance by name, a description of another user, or "" for nobody."""
    exclusive: tuple[Exclusive, ...] = EXCLUSIVE
    """What nobody else may use when the deployment starts; without GPUs if busy ones were assigned on purpose."""
    restart: RestartSpec = field(default_factory=RestartSpec)
    app: Mapping[str, str] = field(default_factory=dict)
    """Files of the user's own program, by path below `app/` in every host's state directory."""
    chosen_ports: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by host and use
    gate: GatePlan | None = None

    @property
    def working(self) -> tuple[str, ...]:
        """Return the hosts that something runs on, in the inventory's order."""
        busy = {step.host for stage in self.stages for step in stage.steps}
        busy |= {host for instance in self.instances for host in instance.hosts}
        return tuple(name for name in self.hosts if name in busy)

    @property
    def fronts(self) -> tuple[RouterPlan | GatePlan, ...]:
        """Return the routers and the gate."""
        return (*self.routers, self.gate) if self.gate else self.routers

    def behind(self, front: RouterPlan | GatePlan) -> tuple[InstancePlan, ...]:
        """Return the instances that a router asks, or the gate itself: it leaves others to their router."""
        routed = {router.model for router in self.routers}
        models = {one.model for one in self.instances} - routed if front.name == GATE else {front.model}
        return tuple(instance for instance in self.instances if instance.model in models)

    @property
    def servers(self) -> tuple[Server, ...]:
        """Return all instances, routers and the gate."""
        return (*self.instances, *self.fronts)

    @property
    def entrances(self) -> tuple[Server, ...]:
        """Return the servers that clients connect to: the gate, else a model's router, else its instances."""
        return entrances(self.instances, self.fronts)


def join_port(address: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
