"""The specification of a deployment, whatever dialect it was read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.plain import plain
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.secrets import Secret
from flagscale_deploy.secrets.forms import SHORTEST
from flagscale_deploy.support.value import Value

RayMode = Literal["auto", "on", "off"]
Executor = Literal["ray", "mp", "auto"]
PoolRole = Literal["prefill", "decode"]

DEFAULT_ENGINE_PORT = 8000
_NOT_PUBLIC = ("locate", "resolved", "taken_secrets", "tree", "warnings")


@dataclass(frozen=True)
class Timeouts:
    """Seconds each stage may take before it counts as failed."""

    connect: float = 15.0
    probe: float = 60.0
    ray: float = 180.0
    ready: float = 1800.0
    stop: float = 30.0
    """How long an engine may take to end after SIGTERM before it is killed."""
    stall: float = 30.0
    """How long an engine that starts may show no progress before that is reported."""
    drain: float = 120.0
    """How long a group that is changed may have requests before it is stopped with them."""


@dataclass(frozen=True)
class RaySpec:
    """`deploy.ray`. `port` is the GCS port: None takes 6379, or the next free one."""

    mode: RayMode = "on"
    port: int | None = None
    dashboard: bool = True


@dataclass(frozen=True)
class RouterSpec:
    """`deploy.router`: the router in front of a model's replicas.

    `enabled` None: a router where there is more than one replica. `policy`, `port`, `metrics_port` None: the planner's
    choice. `host` is the address it listens on, None all of them. `options` are further flags of vllm-router, dashed
    and without `--`, with values as the user wrote them.
    """

    enabled: bool | None = None
    policy: str | None = None
    port: int | None = None
    host: str | None = None
    metrics_port: int | None = None
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class TlsSpec:
    """`deploy.tls`: the files that engines serve TLS with.

    `certfile`, `keyfile` (None: the key is in `certfile`) and `cafile` are absolute paths on the hosts, or names in
    `sent`: files that travel with a run, by their names below `secrets/`, with their content. A router trusts
    its replicas by `cafile`. `certificate` describes one that is sent. `authority` is the file on the operator's
    machine by which clients may trust it, None for public authorities.
    """

    certfile: str
    keyfile: str | None = None
    cafile: str | None = None
    sent: Mapping[str, str | Secret] = field(default_factory=dict)
    certificate: TlsFile | None = None
    authority: str | None = None


@dataclass(frozen=True)
class InlineNode:
    """A host that the configuration itself names (`hostfile.nodes`). `slots` are GPUs, or CPUs of type `cpu`."""

    address: str
    slots: int | None = None
    type: str = "gpu"
    ssh_port: int | None = None
    docker: str | None = None


@dataclass(frozen=True)
class PoolSpec:
    """`deploy.models.<name>.prefill` or `.decode`: the engines that do one of the two.

    `engine_args` are the pool's own flags, which win over the model's, and `env` its variables, which win over all
    others; `num_gpus` and `hosts` None are the model's. `where` and `places` say where the pool and its settings stand,
    as those of `ModelSpec` do.
    """

    replicas: int = 1
    num_gpus: int | None = None
    hosts: str | None = None
    engine_args: Mapping[str, Value] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the serve YAML.

    `engine_args` keeps the user's order and values; keys are vLLM's long flag names with dashes and without `--`
    (`tensor-parallel-size`, never `tp`), `model`, `port` and secrets excluded. `num_gpus` is what the user wrote, if
    anything: it has to agree with tensor × pipeline × data parallel size. `where` is the file and key path.
    With `port_auto`, `port` or the next free one above it is wanted. `replicas` "auto" is as many as the free GPUs
    carry. `hosts` is a host pattern as `--limit` takes it; None allows every host. `host_types` are custom resources
    that its hosts have to be of (`type`). `places` says where flags, `hosts` and `resources` were set. `prefill` and
    `decode` are both set or neither: pools of engines; then `replicas` is 1 and means nothing. `env` are variables of
    its servers alone: those of a pool.
    """

    name: str
    model: str
    engine: str = "vllm"
    engine_args: Mapping[str, Value] = field(default_factory=dict)
    action_args: tuple[str, ...] = ()
    port: int = DEFAULT_ENGINE_PORT
    num_gpus: int | None = None
    num_cpus: float | None = None
    replicas: int | Literal["auto"] = 1
    where: str = ""
    port_auto: bool = False
    hosts: str | None = None
    host_types: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    prefill: PoolSpec | None = None
    decode: PoolSpec | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    pool: PoolRole | Literal[""] = ""
    """Which of its pools serves the model in this way; "" for a model as it is written."""

    @property
    def label(self) -> str:
        """Return the model's name, `model/pool` for one of its pools."""
        return join_label(self.name, self.pool)

    @property
    def pools(self) -> dict[PoolRole, ModelSpec]:
        """Return the model as each of its pools serves it, prefill first; {} where one engine does both."""
        pools: dict[PoolRole, PoolSpec | None] = {"prefill": self.prefill, "decode": self.decode}
        return {role: self._of_pool(role, pool) for role, pool in pools.items() if pool is not None}

    def _of_pool(self, role: PoolRole, pool: PoolSpec) -> ModelSpec:
        names = {name.removeprefix("no-") for name in pool.engine_args}
        actions = (action for action in self.action_args if action.partition("=")[0].removeprefix("no-") not in names)
        return replace(
            self,
            engine_args={**self.engine_args, **pool.engine_args},
            action_args=tuple(actions),
            num_gpus=self.num_gpus if pool.num_gpus is None else pool.num_gpus,
            replicas=pool.replicas,
            where=pool.where,
            hosts=pool.hosts or self.hosts,
            places={**self.places, **pool.places},
            prefill=None,
            decode=None,
            env=pool.env,
            pool=role,
        )

    def place(self, key: str) -> str:
        """Return where a flag, `hosts` or `resources` was set."""
        return self.places.get(key, f"{self.where}.{key}")

    def parallel(self, kind: Literal["tensor", "pipeline", "data"]) -> int:
        """Return the parallel size of a kind; 1 where the configuration does not set it."""
        size = self.engine_args.get(f"{kind}-parallel-size")
        return 1 if size is None else int(str(size))

    @property
    def world_size(self) -> int:
        """Return the ranks of one instance: tensor × pipeline × data parallel size."""
        return self.parallel("tensor") * self.parallel("pipeline") * self.parallel("data")

    @property
    def gpus_needed(self) -> int:
        """Return the GPUs of one instance: what the user wrote, else one for each rank."""
        return self.world_size if self.num_gpus is None else self.num_gpus


@dataclass(frozen=True)
class ServeSpec:
    """A whole deployment as its configuration describes it.

    `secret_env` are the variables whose values are never shown (secret by name in `experiment.envs`, `api-key`,
    `deploy.secrets`); they are in no other field; `secrets` are the names of those from the operator's environment.
    `before_start` and `after_stop` are shell of the user's, run on each host as it is. `hostfile`, `ssh_port`,
    `docker`, `nnodes`, `nproc_per_node` and `device_type` are `experiment.runner`'s, `nodes` (the head first) those of
    an inline hostfile: they apply where no inventory says otherwise.

    `host_env` and `host_engine_args` hold what is set for one host only, by its name or address. With `runs_program`,
    `entrypoint` runs as a Ray driver instead of `vllm serve`; then there are no `models`, `remote_options` are the
    options of `ray.remote` by name, `program_port` is where it answers, if anywhere, and `document` is the whole
    configuration, resolved, in the shape of a FlagScale experiment: it may hold secrets. `action` is the file's or the
    command line's: run, stop, or another of FlagScale's.
    """

    name: str
    models: tuple[ModelSpec, ...]
    exp_dir: str = "outputs"
    ray: RaySpec = RaySpec()
    executor: Executor = "ray"
    """What joins the hosts of an instance, where the model has no `distributed-executor-backend`."""
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, Secret] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    before_start: str | None = None
    after_stop: str | None = None
    timeouts: Timeouts = Timeouts()
    hostfile: str | None = None
    ssh_port: int | None = None
    docker: str | None = None
    source: str = "config"
    router: RouterSpec = RouterSpec()
    gate: GateSpec | None = None
    nodes: tuple[InlineNode, ...] = ()
    nnodes: int | None = None
    nproc_per_node: int | None = None
    device_type: str | None = None
    host_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    host_engine_args: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    entrypoint: str | None = None
    command_line_mode: bool | None = None
    remote_options: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    document: Mapping[str, Value] = field(default_factory=dict, repr=False)
    program_port: int | None = None
    action: str = "run"
    restart: RestartSpec = field(default_factory=RestartSpec)
    warm: bool = True
    """Whether packages and weights are read ahead while Ray starts."""
    tls: TlsSpec | None = None
    warnings: tuple[Fault, ...] = ()
    """What `plan` says about settings that are translated, each with its place."""
    tree: Mapping[str, Value] = field(default_factory=dict, repr=False, compare=False)
    """The configuration as it was composed, with its overrides, nothing resolved. It may hold secrets."""
    resolved: Mapping[str, Value] = field(default_factory=dict, repr=False, compare=False)
    """The same with every reference resolved. It may hold secrets."""
    taken_secrets: tuple[Secret, ...] = field(default=(), repr=False, compare=False)
    """The values of secret variables of the operator's environment that it refers to."""
    locate: Callable[[tuple[str, ...]], str] | None = field(default=None, repr=False, compare=False)
    """What says where a key path stands, with line and column."""

    def where(self, *path: str) -> str:
        """Return where a key of the configuration stands."""
        return self.locate(path) if self.locate else f"{self.source}: {'.'.join(path)}"

    @property
    def engines(self) -> tuple[ModelSpec, ...]:
        """Return the models as engines serve them: one with pools once for each pool."""
        return tuple(engine for model in self.models for engine in (model.pools.values() or (model,)))

    @property
    def runs_program(self) -> bool:
        """Return whether a program of the user's own is served, and not `vllm serve`."""
        return self.entrypoint is not None and not self.command_line_mode

    def holds_secret(self, text: str) -> bool:
        """Return whether a text has the value of a secret variable in it."""
        values = (secret.reveal() for secret in self.taken_secrets)
        return any(value in text for value in values if len(value) >= SHORTEST)

    def public(self) -> dict[str, Any]:
        """Return the specification as JSON types, of secrets the names only: for digests and for people."""
        document = json.dumps(plain(self.document), sort_keys=True, default=str)
        names = (field.name for field in fields(self) if field.name not in _NOT_PUBLIC)
        content = {name: plain(getattr(self, name)) for name in names}
        hidden = {"secret_env": sorted(self.secret_env), "document": hashlib.sha256(document.encode()).hexdigest()}
        return {**content, **hidden}


def join_label(model: str, pool: str) -> str:
    """Return the name of a model's pool, or of a model without pools."""
    return f"{model}/{pool}" if pool else model
