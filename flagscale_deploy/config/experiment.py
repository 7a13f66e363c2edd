"""The keys of `experiment` and their types, by the rules of `settings.py`."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.schema.settings import Settings
from flagscale_deploy.config.schema.values import Count, Ignored, Nodes, Port, PortOrAuto, Text


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


class CliArgs(Settings):
    """`experiment.runner.cli_args`: what `flagscale serve` puts there from its own options."""

    model_path: Text | None = None
    port: PortOrAuto | None = None
    engine_args: Any = None


class Runner(Settings):
    """`experiment.runner`; `deploy` in it is read where all `deploy` are."""

    hostfile: Text | None = None
    ssh_port: Port | None = None
    docker: Text | None = None
    nnodes: Nodes | None = None
    nproc_per_node: Count | None = None
    device_type: Text | None = None
    cli_args: CliArgs | None = None
    deploy: Ignored = None
    backend: Ignored = None
    enable_gpu_health_check: Ignored = None
    enable_monitoring: Ignored = None
    log_dir: Ignored = None
    master_addr: Ignored = None
    master_port: Ignored = None
    no_shared_fs: Ignored = None
    rdzv_backend: Ignored = None
    rdzv_endpoint: Ignored = None
    rdzv_id: Ignored = None
    redirects: Ignored = None
    tee: Ignored = None
    type: Ignored = None


class NodeArgs(Settings):
    """`experiment.node_args.<host>`."""

    engine_args: dict[str, Any] | None = None


class Experiment(Settings):
    """`experiment`; `envs` is read by `environment.py` and `per_host.py`, `deploy` where all `deploy` are."""

    exp_name: Text | None = None
    exp_dir: Text | None = None
    task: Task | None = None
    runner: Runner | None = None
    cmds: Commands | None = None
    envs: dict[str, Any] | None = None
    node_args: dict[str, NodeArgs | None] | None = None
    deploy: Ignored = None
    auto_tuner: Ignored = None
    ckpt_format: Ignored = None
    load: Ignored = None
    save_steps: Ignored = None
    seed: Ignored = None
