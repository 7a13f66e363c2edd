"""The keys of `experiment` and their types, by the rules of `settings.py`."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.schema.base import Settings, setting
from flagscale_deploy.config.schema.values import Count, Ignored, Nodes, Port, PortOrAuto, Text


class Task(Settings):
    """`experiment.task`."""

    type: Text | None = setting("`serve`; others are refused. Default: serve")
    backend: Text | None = setting("`vllm`; every other engine is refused. Default: vllm")
    entrypoint: Text | None = setting("a program of your own; ignored in command-line mode. Default: null")


class Commands(Settings):
    """`experiment.cmds`: shell, as it is."""

    before_start: Text | None = setting("shell, run as it is on each host before Ray and vLLM start. Default: none")
    after_stop: Text | None = setting("shell, run as it is on each host after `stop`. Default: none")
    extra: Ignored = None


class CliArgs(Settings):
    """`experiment.runner.cli_args`: what `flagscale serve` puts there from its own options."""

    model_path: Text | None = setting("the model; wins over the file's")
    port: PortOrAuto | None = setting("the port; wins over all others")
    engine_args: Any = setting("flags, a mapping or JSON text; win over the file's")


class Runner(Settings):
    """`experiment.runner`; `deploy` in it is read where all `deploy` are."""

    hostfile: Text | None = setting(
        "the hosts, if `-i` is not given; relative to the working directory. Default: `hostfile.nodes`"
    )
    ssh_port: Port | None = setting("SSH port, if the inventory has none. Default: 22")
    docker: Text | None = setting("container, if the inventory has none. Default: none")
    nnodes: Nodes | None = setting(
        "use only the first so many hosts, an error if there are fewer; not with `-i`. Default: all"
    )
    nproc_per_node: Count | None = setting(
        "GPUs of each host at most; of `-i`, only with `localhost`. Default: what the probe finds"
    )
    device_type: Text | None = setting(
        "of this machine, with `-i localhost`: `gpu`, `cpu` (then `nproc_per_node` are CPUs for Ray), or another "
        "type. Default: gpu"
    )
    cli_args: CliArgs | None = setting("what `flagscale serve` puts there from its own options")
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
    use_fs_serve: Ignored = None


class NodeArgs(Settings):
    """`experiment.node_args.<host>`."""

    engine_args: dict[str, Any] | None = setting("flags of the engine whose driver is this host. Default: none")


class Experiment(Settings):
    """`experiment`; `envs` is read by `environment.py` and `per_host.py`, `deploy` where all `deploy` are."""

    exp_name: Text | None = setting("the deployment's name, if nothing better is given. Default: the file's name")
    exp_dir: Text | None = setting(
        "where runs leave their plan, scripts, events and logs, on your disk. Default: `outputs/<name>`"
    )
    task: Task | None = setting("what FlagScale's runner is asked for")
    runner: Runner | None = setting("FlagScale's runner: the hosts of this file")
    cmds: Commands | None = setting("shell around the deployment")
    envs: dict[str, Any] | None = setting(
        "variables on every host. `true` becomes `true`; `0,1,2,3` and `1.10` stay; `null` is left out; `$NAME` is a "
        "variable of the host. Secret names go into 0600 files. Default: none"
    )
    node_args: dict[str, NodeArgs | None] | None = setting("flags of one host's engines")
    deploy: Ignored = None
    auto_tuner: Ignored = None
    ckpt_format: Ignored = None
    load: Ignored = None
    save_steps: Ignored = None
    seed: Ignored = None
