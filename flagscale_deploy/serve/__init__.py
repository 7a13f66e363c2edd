"""The library for a user's own program: `from flagscale_deploy import serve`.

It is sent to the hosts with the program, and needs Python 3.8, PyYAML and Ray there. On hosts without the package
`flagscale`, `from flagscale import serve` imports it, too.

    from flagscale_deploy import serve

    @serve.remote(name="vllm_model", num_gpus=1)    # deploy.models.vllm_model overrides these
    def model(config): ...

    serve.init()
    serve.run(model.remote(serve.task_config))
"""

from typing import Any

from flagscale_deploy.serve.config import Config, TaskConfig, prepare
from flagscale_deploy.serve.tasks import init, remote, run, stop

load_args = prepare
"""FlagScale's name for it since 2025."""

__all__ = ["Config", "TaskConfig", "init", "load_args", "prepare", "remote", "run", "stop", "task_config"]

task_config: Config


def __getattr__(name: str) -> Any:
    """Read `task_config` on first use: a program may import this module before it knows its configuration file."""
    if name == "task_config":
        return prepare()
    raise AttributeError("module %r has no attribute %r" % (__name__, name))
