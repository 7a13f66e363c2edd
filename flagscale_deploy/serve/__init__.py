"""What a program of the user's own imports: `from flagscale_deploy import serve`.

It travels to the hosts with the program, and needs Python 3.8, PyYAML and Ray there, but nothing else of ours. Where a
host has no `flagscale` of its own, `from flagscale import serve` means this, too.

    from flagscale_deploy import serve

    @serve.remote(name="vllm_model", num_gpus=1)    # deploy.models.vllm_model wins over what stands here
    def model(config): ...

    serve.init()
    serve.run(model.remote(serve.task_config))
"""

from typing import Any

from flagscale_deploy.serve.config import Config, TaskConfig, prepare
from flagscale_deploy.serve.tasks import init, remote, run, stop

load_args = prepare
"""The name that FlagScale gave it from 2025 on."""

__all__ = ["Config", "TaskConfig", "init", "load_args", "prepare", "remote", "run", "stop", "task_config"]

task_config: Config


def __getattr__(name: str) -> Any:
    """`task_config` is read when somebody asks for it: a program may import this before it is told where it is."""
    if name == "task_config":
        return prepare()
    raise AttributeError("module %r has no attribute %r" % (__name__, name))
