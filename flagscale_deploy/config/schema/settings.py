"""Our own settings: the keys of `deploy` and their types; those of `experiment` are in `experiment.py`.

Keys may be written with `-` or `_`. Keys that FlagScale published and that mean nothing to a deployment by us are known
and ignored (`Ignored`); every other unknown key is a fault.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

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
    Text,
    UnfitError,
    VariableName,
)

_RAY_WORDS = {
    **dict.fromkeys(("on", "true", "yes", "always"), "on"),
    **dict.fromkeys(("off", "false", "no", "never"), "off"),
    "auto": "auto",
}
_ROUTER_WORDS = {
    **dict.fromkeys(("on", "true", "yes", "always"), True),
    **dict.fromkeys(("none", "off", "false", "no", "never"), False),
    "auto": None,
}


Policy = Literal[
    "random", "round_robin", "cache_aware", "kv_aware", "power_of_two", "consistent_hash", "sticky_least_loaded"
]
"""Those of vllm-router 0.1.17."""


def _ray_mode(value: Any) -> Any:
    mode = None if value is None else _RAY_WORDS.get(str(value).lower())
    if mode is None and value is not None:
        raise UnfitError("expected always, auto or never", "as in ray: auto, or ray: {mode: auto, port: 6379}")
    return mode


def _ray(value: Any) -> Any:
    return value if isinstance(value, dict) else {"mode": value}


def _router(value: Any) -> Any:
    """`none`, `always`, `auto`, the name of a policy, or a mapping."""
    if isinstance(value, (dict, list)):
        return value
    word = str(value).lower()
    return {"enabled": _ROUTER_WORDS[word]} if word in _ROUTER_WORDS else {"policy": value}


def _policy(value: Any) -> Any:
    if value is None:
        return None
    word = str(value).replace("-", "_").lower()
    if word not in get_args(Policy):
        raise UnfitError("is no policy of vllm-router", f"one of {', '.join(get_args(Policy))}; or none, auto, always")
    return word


def _restart(value: Any) -> Any:
    """A policy by itself, or a mapping, which asks for restarts unless it says otherwise."""
    return {"policy": "on-failure", **value} if isinstance(value, dict) else {"policy": value}


def _restart_policy(value: Any) -> Any:
    """YAML 1.1 reads a bare `no` as false."""
    word = str(value).replace("_", "-").lower()
    word = "no" if word in ("false", "off", "never") else word
    if word not in ("no", "on-failure"):
        raise UnfitError(
            "expected no or on-failure", "on-failure restarts a server that ends, whatever its exit status"
        )
    return word


def _backoff(value: Any) -> Any:
    """Always the same seconds, or a mapping."""
    return value if isinstance(value, dict) else {"first": value, "factor": 1, "max": value}


class Settings(BaseModel):
    """A mapping of the user's; its keys are those of the class, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, keys: Any) -> Any:
        return {key.replace("-", "_"): value for key, value in keys.items()} if isinstance(keys, dict) else keys


class RaySettings(Settings):
    """`deploy.ray`: a mode by itself, or this mapping."""

    mode: Annotated[Literal["auto", "on", "off"] | None, BeforeValidator(_ray_mode)] = None
    port: Port | None = None
    dashboard: Flag | None = None


class RouterSettings(Settings):
    """`deploy.router`; keys that are not named here are flags of vllm-router (`router_flags.py`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: Flag | None = None
    port: PortOrAuto | None = None
    host: Text | None = None
    prometheus_port: Port | None = None
    policy: Annotated[Policy | None, BeforeValidator(_policy)] = None


class TimeoutSettings(Settings):
    """`deploy.timeouts`, in seconds or as `30m`."""

    connect: Seconds | None = None
    probe: Seconds | None = None
    ray: Seconds | None = None
    ready: Seconds | None = None
    stop: Seconds | None = None
    stall: Seconds | None = None


class BackoffSettings(Settings):
    """`deploy.restart.backoff`: seconds by themselves, or this mapping."""

    first: Seconds | None = None
    factor: Factor | None = None
    max: Seconds | None = None


class RestartSettings(Settings):
    """`deploy.restart`: a policy by itself, or this mapping."""

    policy: Annotated[Literal["no", "on-failure"] | None, BeforeValidator(_restart_policy)] = None
    max: Count | None = None
    backoff: Annotated[BackoffSettings, BeforeValidator(_backoff)] | None = None
    reset_after: Seconds | None = None
    boot: Flag | None = None


class TlsSettings(Settings):
    """`deploy.tls`: files on every host or, with `send`, on the operator's machine."""

    certfile: Text | None = None
    keyfile: Text | None = None
    cafile: Text | None = None
    send: Flag | None = None


class ServiceSettings(Settings):
    """`deploy.service`, where the first form kept the port that many copies share."""

    port: PortOrAuto | None = None
    name: Ignored = None
    request: Ignored = None


class ModelOptions(Settings):
    """`deploy.models.<name>`, and `resources` of the list form.

    Those after `replicas` are the other options of `ray.remote` (Ray 2.60, `ray/_common/ray_option_utils.py`): they
    go to a program of the user's own and mean nothing to `vllm serve`.
    """

    hosts: HostPattern | None = None
    num_gpus: Amount | None = None
    num_cpus: Amount | None = None
    num_replicas: CountOrAuto | None = None
    replicas: CountOrAuto | None = None
    accelerator_type: Any = None
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
    resources: Any = None
    retry_exceptions: Any = None
    runtime_env: Any = None
    scheduling_strategy: Any = None


class Deploy(Settings):
    """`deploy`, wherever it stands."""

    port: PortOrAuto | None = None
    name: Text | None = None
    ray: Annotated[RaySettings, BeforeValidator(_ray)] | None = None
    router: Annotated[RouterSettings, BeforeValidator(_router)] | None = None
    restart: Annotated[RestartSettings, BeforeValidator(_restart)] | None = None
    timeouts: TimeoutSettings | None = None
    warm: Flag | None = None
    tls: TlsSettings | None = None
    secrets: list[VariableName] | None = None
    secret_files: dict[VariableName, Text] | None = None
    models: dict[str, ModelOptions | None] | None = None
    service: ServiceSettings | None = None
    command_line_mode: Flag | None = None
    prefill_decode_disaggregation: Flag | None = None
    enable_composition: Flag | None = None
    instance: Ignored = None  # read with `llm`, which it belongs to
    use_fs_serve: Ignored = None
    use_native_serve: Ignored = None
    decode_address: Ignored = None
    decode_gpu_memory_utilization: Ignored = None
    decode_num: Ignored = None
    pd_proxy_port: Ignored = None
    prefill_address: Ignored = None
    prefill_decode_log_dir: Ignored = None
    prefill_num: Ignored = None
