"""The configuration of the running program: the whole YAML, resolved, read once."""

import argparse
import functools
import os
from typing import Any, Tuple

import yaml

CONFIG_VARIABLE, LOGS_VARIABLE = "FLAGSCALE_DEPLOY_CONFIG", "FLAGSCALE_DEPLOY_LOGS"
"""Environment variables with the paths for tasks on other hosts, which have no command line of the program."""


class Config(dict):  # type: ignore[type-arg]  # Python 3.8 has no dict[str, Any] to derive from
    """A mapping whose keys are attributes, too: `config.serve.model_args["vllm_model"]`. Ray can pickle it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError("no %r in the configuration; it has: %s" % (name, ", ".join(map(str, self)))) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


@functools.lru_cache(maxsize=None)
def prepare() -> Config:
    """Return the configuration named by `--config-path FILE`, with `log_dir` from `--log-dir DIR`; always the same one.

    Other arguments on the command line are the program's own. Raises RuntimeError where no file is named.
    """
    path, log_dir = _places()
    if not path:
        raise RuntimeError("no configuration file: give --config-path FILE (flagscale-deploy run does)")
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    if not isinstance(content, dict):
        raise RuntimeError("%s: expected a mapping at the top" % path)
    config = _attributed(content)
    config["log_dir"] = log_dir
    return config  # type: ignore[no-any-return]


class TaskConfig:
    """The same configuration under the name that FlagScale's first examples use: `serve.TaskConfig.get()`."""

    @staticmethod
    def get() -> Config:
        """Return the configuration."""
        return prepare()


def _places() -> Tuple[str, str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-path", default=os.environ.get(CONFIG_VARIABLE, ""))
    parser.add_argument("--log-dir", default=os.environ.get(LOGS_VARIABLE, "outputs"))
    arguments, _ = parser.parse_known_args()
    return arguments.config_path, arguments.log_dir


def _attributed(value: Any) -> Any:
    if isinstance(value, dict):
        return Config((key, _attributed(item)) for key, item in value.items())
    return [_attributed(item) for item in value] if isinstance(value, list) else value
