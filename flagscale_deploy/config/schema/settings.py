"""Our own settings: the keys of `deploy` and their types; those of `experiment` are in `experiment.py`.

Keys may be written with `-` or `_`. Keys that FlagScale published and that mean nothing to a deployment by us are known
and ignored (`Ignored`); every other unknown key is a fault.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from flagscale_deploy.config.schema.base import Settings, setting
from flagscale_deploy.config.schema.gate import GateSettings
from flagscale_deploy.config.schema.values import (
    Amount,
    Count,
    CountOrAuto,
    Factor,
    Flag,
    HostPattern,
    Ignored,
    Port,
    PortOrAuto,
    Seconds,
    SecondsOrOff,
    Text,
    VariableName,
)
from flagscale_deploy.config.schema.words import (
    ExecutorWord,
    RayMode,
    RayWord,
    RestartPolicy,
    RestartWord,
    RouterPolicy,
    RouterWord,
    backoff_keys,
    gate_keys,
    ray_keys,
    restart_keys,
    router_keys,
)


class RaySettings(Settings):
    """`deploy.ray`: a mode by itself, or this mapping."""

    mode: RayMode = setting(
        "`always` (or `on`); `never` (or `off`); `auto`: only where an instance needs Ray. Default: always"
    )
    port: Port | None = setting("the port of Ray's head. Default: 6379, or the next free one")
    dashboard: Flag | None = setting("Ray's dashboard, on 127.0.0.1 of the head. Default: true")


class RouterSettings(Settings):
    """`deploy.router`; keys that are not named here are flags of vllm-router (`router_flags.py`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: Flag | None = setting("`true`: a router also in front of a single replica; `false`: none. Default: auto")
    port: PortOrAuto | None = setting("the router's port, on the head. Default: 30000, or the next free one")
    host: Text | None = setting("the address that the router listens on. Default: all addresses of the head")
    prometheus_port: Port | None = setting(
        "the port of the router's metrics, on 127.0.0.1 of the head. Default: 29000, or the next free one"
    )
    policy: RouterPolicy = setting(
        "`cache_aware`, `round_robin`, `random`, `power_of_two`, `consistent_hash`, `kv_aware` or "
        "`sticky_least_loaded`. Default: `cache_aware`"
    )


class TimeoutSettings(Settings):
    """`deploy.timeouts`, in seconds or as `30m`."""

    connect: Seconds | None = setting(
        "to reach a host. Seconds, or `90s`, `30m`, `1h30m`, as for all timeouts. Default: 15"
    )
    probe: Seconds | None = setting("to probe a host. Default: 60")
    ray: Seconds | None = setting("until Ray counts every node and GPU. Default: 180")
    ready: Seconds | None = setting("until the first token. Default: 1800")
    stop: Seconds | None = setting("how long an engine may take to end before it is killed. Default: 30")
    stall: Seconds | None = setting(
        "how long an engine that starts may log nothing and read nothing on any host, before that is reported. "
        "Default: 30"
    )
    drain: Seconds | None = setting(
        "how long `update` waits for the requests of a group before it stops the group. Default: 120"
    )


class BackoffSettings(Settings):
    """`deploy.restart.backoff`: seconds by themselves, or this mapping."""

    first: Seconds | None = setting("seconds before the first restart in a row. Default: 1")
    factor: Factor | None = setting("each further wait is this many times longer. Default: 2")
    max: Seconds | None = setting("the longest wait, in seconds. Default: 60")


class RestartSettings(Settings):
    """`deploy.restart`: a policy by itself, or this mapping."""

    policy: RestartPolicy = setting(
        "`on-failure`: restart a server that ends after it was ready, whatever its exit status; `no`. Default: "
        "on-failure"
    )
    max: Count | None = setting("restarts in a row before the server is given up. Default: 5")
    backoff: (
        Annotated[BackoffSettings, BeforeValidator(backoff_keys, json_schema_input_type=BackoffSettings | float | str)]
        | None
    ) = setting("the wait before a restart: always the same (`10`, `10s`), or the three keys below")
    reset_after: Seconds | None = setting(
        "after this long in good health the count of restarts begins at 0 again. Default: 10m"
    )
    hang: SecondsOrOff | None = setting(
        "an engine that has work and makes no token for this long is restarted, and one that answers no probe; `off`: "
        "not looked for. Default: 10m"
    )
    interval: SecondsOrOff | None = setting(
        "an engine that makes no token for this long is asked for one; `off`: it is not asked. Default: 60"
    )
    boot: Flag | None = setting("`true`: a host that reboots starts its part again. Default: false")
    lost: Seconds | None = setting(
        "a group of ranks is restarted when one of its hosts was silent for this long. Default: 60"
    )
    spare: Flag | None = setting(
        "`true`: a rank whose host stays lost goes to another host with free GPUs. Default: false"
    )
    notify: Text | None = setting(
        "a command for bash, run on the server's host when it is restarted, restored or given up; it gets JSON on "
        "standard input. Default: none"
    )


class TlsSettings(Settings):
    """`deploy.tls`: files on every host or, with `send`, on the operator's machine."""

    certfile: Text | None = setting(
        "engines speak TLS with this certificate, a path on every host. A model's own `ssl-certfile` wins; "
        "`ssl-certfile: false` leaves that model without TLS. Default: none, plain HTTP"
    )
    keyfile: Text | None = setting("the key of the certificate, a path on every host. Default: in `certfile`")
    cafile: Text | None = setting(
        "what a router trusts its replicas by, a path on the head; with `send` also what the printed `curl` line "
        "uses. Default: `certfile`, if it is self-signed; else the system's authorities"
    )
    send: Flag | None = setting(
        "`true`: the three are files on your machine; they travel to the hosts as secrets do. Default: false"
    )


class ServiceSettings(Settings):
    """`deploy.service`, where the first form kept the port that many copies share."""

    port: PortOrAuto | None = setting(
        "the same as `deploy.port`, where the first form had it; `deploy.port` wins. Default: 8000"
    )
    name: Ignored = None
    request: Ignored = None


class PoolSettings(Settings):
    """`deploy.models.<name>.prefill` and `.decode`."""

    num_replicas: Count | None = setting("engines of this pool. Default: 1")
    num_gpus: Amount | None = setting(
        "GPUs of one engine; must agree with its parallel sizes. Default: the model's, else one for each rank"
    )
    hosts: HostPattern | None = setting("the hosts of this pool, a pattern as for `--limit`. Default: the model's")
    engine_args: dict[str, Any] | None = setting("flags of vLLM for this pool; they win over the model's")
    env: dict[str, Any] | None = setting("variables of this pool, as in `experiment.envs`, over which they win")


class ModelOptions(Settings):
    """`deploy.models.<name>`, and `resources` of the list form.

    Those after `replicas` are the other options of `ray.remote` (Ray 2.60, `ray/_common/ray_option_utils.py`): they
    go to a program of the user's own and mean nothing to `vllm serve`.
    """

    hosts: HostPattern | None = setting("the hosts it may run on, a pattern as for `--limit`. Default: all")
    num_gpus: Amount | None = setting(
        "GPUs of one replica; must agree with tensor × pipeline × data parallel size. 0 serves on CPU. Default: one "
        "for each rank"
    )
    num_cpus: Amount | None = setting("CPUs of a task of a program of your own; `vllm serve` takes the CPUs it needs")
    num_replicas: CountOrAuto | None = setting("replicas, or `auto`: as many as the free GPUs allow. Default: 1")
    replicas: CountOrAuto | None = setting("another name of `num_replicas`. Default: 1")
    prefill: PoolSettings | None = setting(
        "the engines that only prefill, apart from those that decode: the keys below. Needs `decode`, and no "
        "`num_replicas` beside it"
    )
    decode: PoolSettings | None = setting("the engines that only decode: the keys of `prefill`. Needs `prefill`")
    accelerator_type: Any = setting("`A100`: the same as `resources: {A100: 1}`. Default: all")
    allow_out_of_order_execution: Any = None
    concurrency_groups: Any = None
    enable_task_events: Any = None
    enable_tensor_transport: Any = None
    fallback_strategy: Any = None
    get_if_exists: Any = None
    label_selector: Any = None
    lifetime: Any = None
    max_calls: Any = None
    max_concurrency: Any = None
    max_pending_calls: Any = None
    max_restarts: Any = None
    max_retries: Any = None
    max_task_retries: Any = None
    memory: Any = None
    name: Any = None
    namespace: Any = None
    num_returns: Any = None
    object_store_memory: Any = None
    placement_group: Any = None
    placement_group_bundle_index: Any = None
    placement_group_capture_child_tasks: Any = None
    resources: Any = setting(
        "`{A100: 1}`: only hosts of `type: A100`; amounts matter for tasks of a program only. Default: all"
    )
    retry_exceptions: Any = None
    runtime_env: Any = None
    scheduling_strategy: Any = None


class Deploy(Settings):
    """`deploy`, wherever it stands."""

    port: PortOrAuto | None = setting("the servers' port, in every form; a number or `auto`. Default: 8000")
    name: Text | None = setting(
        "the deployment's name: letters, digits, `.`, `_`, `-`, 63 at most. `--name` wins over it. Default: "
        "`experiment.exp_name`, else the file's name"
    )
    ray: Annotated[RaySettings, BeforeValidator(ray_keys, json_schema_input_type=RaySettings | RayWord)] | None = (
        setting("the mode by itself (`always`, `auto`, `never`), or the three keys below. Default: always")
    )
    executor: ExecutorWord = setting(
        "what joins the hosts of one instance: `ray`; `mp`: vLLM's multiprocessing, without Ray; `auto`: `mp` where "
        "its hosts have equal shares of the GPUs, else `ray`. A model's own `distributed-executor-backend` wins. "
        "With `mp` or `auto`, `ray` is `auto` unless it is set; so it is without `executor` where a model has "
        "`data-parallel-size`, or `distributed-executor-backend: mp`. Default: ray; mp with `ray: never`"
    )
    router: (
        Annotated[RouterSettings, BeforeValidator(router_keys, json_schema_input_type=RouterSettings | RouterWord)]
        | None
    ) = setting(
        "`none`; `auto`: where a model has several replicas; `always`; a policy by itself; or the keys below. Other "
        "keys are flags of `vllm-router` 0.1.17; an unknown one is an error. Default: auto"
    )
    gate: Annotated[GateSettings, BeforeValidator(gate_keys, json_schema_input_type=GateSettings | bool)] | None = (
        setting(
            "`true`: clients reach all models at one port of the head, that of a [gate](gate.md); or the keys below. "
            "Default: false"
        )
    )
    restart: (
        Annotated[RestartSettings, BeforeValidator(restart_keys, json_schema_input_type=RestartSettings | RestartWord)]
        | None
    ) = setting(
        "what happens to servers that die: a policy by itself (`no`, `on-failure`), or the keys below. Default: no"
    )
    timeouts: TimeoutSettings | None = setting("how long each stage may take")
    warm: Flag | None = setting(
        "read packages and weights into memory while Ray starts, at the lowest priority; weights only where they "
        "fit. Default: true"
    )
    tls: TlsSettings | None = setting("certificates for the engines")
    secrets: list[VariableName] | None = setting(
        "list of variables taken from your environment and given to the hosts in 0600 files; one that is not set is "
        "an error. Default: none"
    )
    secret_files: dict[VariableName, Text] | None = setting(
        "`{VARIABLE: FILE}`: the same, from files on your machine, as in `{HF_TOKEN: ~/.hf-token}`; a final line "
        "end is not part of the secret. Default: none"
    )
    models: dict[str, ModelOptions | None] | None = setting("options of each model")
    service: ServiceSettings | None = setting("the first form's place of `port`")
    command_line_mode: Flag | None = setting(
        "`true`: `vllm serve` runs, whatever `task.entrypoint` says. The oldest files have it beside `deploy`. "
        "Default: true, where there is no entrypoint"
    )
    prefill_decode_disaggregation: Flag | None = setting(
        "FlagScale's way to write `prefill` and `decode` of the one model, with the keys below. Default: false"
    )
    prefill_num: Count | None = setting("FlagScale's `prefill.num_replicas`. Default: 1")
    prefill_address: Text | None = setting("FlagScale's `prefill.hosts`: the name of one host. Default: auto")
    decode_num: Count | None = setting("FlagScale's `decode.num_replicas`. Default: 1")
    decode_address: Text | None = setting("FlagScale's `decode.hosts`: the name of one host. Default: auto")
    decode_gpu_memory_utilization: Amount | None = setting(
        "FlagScale's `decode.engine_args.gpu-memory-utilization`. Default: the model's"
    )
    enable_composition: Flag | None = setting("`true` is refused. Default: false")
    instance: Ignored = setting("with `llm`: list of `{name: …, num-replicas: …}`")
    use_fs_serve: Ignored = None
    use_native_serve: Ignored = None
    pd_proxy_port: Ignored = None
    prefill_decode_log_dir: Ignored = None
