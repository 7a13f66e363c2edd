"""Our own settings: the keys of `deploy` and `experiment`, and their types.

Keys may be written with `-` or `_`. Keys that FlagScale published and that mean nothing to a deployment by us are known
and ignored (`Ignored`); every other unknown key is a fault.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_RAY_WORDS = {
    **dict.fromkeys(("on", "true", "yes", "always"), "on"),
    **dict.fromkeys(("off", "false", "no", "never"), "off"),
    "auto": "auto",
}


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _flag(value: Any) -> Any:
    return {"yes": True, "on": True, "no": False, "off": False}.get(str(value).lower(), value)


def _seconds(value: Any) -> Any:
    """Seconds from a number or from `90s`, `30m`, `1h30m`."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        return _no_boolean(value)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _ray_mode(value: Any) -> Any:
    return _RAY_WORDS.get(str(value).lower(), value)


def _ray(value: Any) -> Any:
    return value if isinstance(value, dict) else {"mode": value}


Port = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=65535)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Gpus = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
Cpus = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Ignored = Any


class Settings(BaseModel):
    """A mapping of the user's; its keys are those of the class, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, keys: Any) -> Any:
        return {key.replace("-", "_"): value for key, value in keys.items()} if isinstance(keys, dict) else keys


class RaySettings(Settings):
    """`deploy.ray`: a mode by itself, or this mapping."""

    mode: Annotated[str, BeforeValidator(_ray_mode), Field(pattern="^(auto|on|off)$")] | None = None
    port: Port | None = None
    dashboard: Flag | None = None


class TimeoutSettings(Settings):
    """`deploy.timeouts`, in seconds or as `30m`."""

    connect: Seconds | None = None
    probe: Seconds | None = None
    ray: Seconds | None = None
    ready: Seconds | None = None
    stop: Seconds | None = None


class ModelOptions(Settings):
    """`deploy.models.<name>`, and `resources` of the list form; the rest are options of Ray tasks."""

    num_gpus: Gpus | None = None
    num_cpus: Cpus | None = None
    num_replicas: Count | None = None
    replicas: Count | None = None
    accelerator_type: Ignored = None
    label_selector: Ignored = None
    max_calls: Ignored = None
    max_retries: Ignored = None
    memory: Ignored = None
    name: Ignored = None
    num_returns: Ignored = None
    resources: Ignored = None
    retry_exceptions: Ignored = None
    runtime_env: Ignored = None
    scheduling_strategy: Ignored = None


class Deploy(Settings):
    """`deploy`, wherever it stands."""

    port: Port | None = None
    name: Text | None = None
    ray: Annotated[RaySettings, BeforeValidator(_ray)] | None = None
    timeouts: TimeoutSettings | None = None
    secrets: list[VariableName] | None = None
    models: dict[str, ModelOptions | None] | None = None
    command_line_mode: Flag | None = None
    prefill_decode_disaggregation: Flag | None = None
    enable_composition: Ignored = None
    use_fs_serve: Ignored = None
    use_native_serve: Ignored = None


class Task(Settings):
    """`experiment.task`."""

    type: Text | None = None
    backend: Text | None = None
    entrypoint: Text | None = None


class Commands(Settings):
    """`experiment.cmds`: shell, as it is."""

    before_start: Text | None = None
    after_stop: Text | None = None
    extra: Ignored = None


class Runner(Settings):
    """`experiment.runner`; `deploy` in it is read where all `deploy` are."""

    hostfile: Text | None = None
    ssh_port: Port | None = None
    docker: Text | None = None
    deploy: Ignored = None
    backend: Ignored = None
    device_type: Ignored = None
    log_dir: Ignored = None
    master_addr: Ignored = None
    master_port: Ignored = None
    nnodes: Ignored = None
    no_shared_fs: Ignored = None
    nproc_per_node: Ignored = None
    rdzv_backend: Ignored = None
    rdzv_endpoint: Ignored = None
    rdzv_id: Ignored = None
    redirects: Ignored = None
    tee: Ignored = None
    type: Ignored = None


class Experiment(Settings):
    """`experiment`; `envs` is read by `environment.py`, `deploy` where all `deploy` are."""

    exp_name: Text | None = None
    exp_dir: Text | None = None
    task: Task | None = None
    runner: Runner | None = None
    cmds: Commands | None = None
    envs: dict[str, Any] | None = None
    deploy: Ignored = None
    auto_tuner: Ignored = None
    ckpt_format: Ignored = None
    load: Ignored = None
    save_steps: Ignored = None
    seed: Ignored = None
