"""Settings of single hosts: `experiment.envs.nodes_envs.<host>` and `experiment.node_args.<host>.engine_args`."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.config.dialects.model import SECRET_FLAGS, SIZES, read_flags
from flagscale_deploy.config.environment import read_variables
from flagscale_deploy.config.experiment import NodeArgs
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.support.value import Tree, Value

_SHARED = ("model", "model-tag", "port", "action-args", *SIZES, *SECRET_FLAGS)


def read_host_env(envs: Mapping[str, Value], path: Path) -> Checked[dict[str, dict[str, str]]]:
    """Return the variables of each host by its name or address; `envs` is `experiment.envs`, with `nodes_envs`."""
    faults = KeyFaults()
    nodes, where = envs.get("nodes_envs"), (*path, "nodes_envs")
    if nodes is None:
        return {}, faults
    if not isinstance(nodes, dict):
        faults.add(where, "is not a mapping", "expected nodes_envs: {10.0.0.1: {NAME: value}}")
        return {}, faults
    env: dict[str, dict[str, str]] = {}
    for host, variables in nodes.items():
        if not isinstance(variables, dict | None):
            faults.add((*where, host), "is not a mapping", "expected variables: {NAME: value}")
            continue
        public, secret = faults.take(read_variables(variables or {}, (*where, host)))
        for name in secret:
            faults.add((*where, host, name), "is a secret", "set it for all hosts: experiment.envs or deploy.secrets")
        env[host] = public
    return env, faults


def read_host_engine_args(nodes: Mapping[str, NodeArgs | None], path: Path) -> Checked[dict[str, Tree]]:
    """Return the engine's flags of each host by its name or address, under vLLM's spelling."""
    faults = KeyFaults()
    by_host: dict[str, Tree] = {}
    for host, node in nodes.items():
        where = (*path, host, "engine_args")
        args = (node.engine_args if node else None) or {}
        flags = faults.take(read_flags(args, where))
        for key in args:
            if flag_name(key) in _SHARED:
                faults.add((*where, key), "must be the same on all hosts", "set it where the model is")
        if flags:
            by_host[host] = flags
    return by_host, faults
