"""What is set for one host only: `experiment.envs.nodes_envs.<host>` and `experiment.node_args.<host>.engine_args`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscale_deploy.config.dialects.model import SECRET_FLAGS, SIZES, flag_name, read_flags
from flagscale_deploy.config.environment import read_variables
from flagscale_deploy.config.experiment import NodeArgs
from flagscale_deploy.config.schema.places import Findings, Path

_SHARED = ("model", "model-tag", "port", "action-args", *SIZES, *SECRET_FLAGS)


def read_host_env(envs: Mapping[str, Any], path: Path, findings: Findings) -> dict[str, dict[str, str]]:
    """The variables of each host by its name or address; `envs` is `experiment.envs`, which may have `nodes_envs`."""
    nodes, where = envs.get("nodes_envs"), (*path, "nodes_envs")
    if nodes is None:
        return {}
    if not isinstance(nodes, dict):
        findings.add(where, "is no mapping", "expected nodes_envs: {10.0.0.1: {NAME: value}}")
        return {}
    found = {}
    for host, variables in nodes.items():
        if not isinstance(variables, dict | None):
            findings.add((*where, host), "is no mapping", "expected variables: {NAME: value}")
            continue
        public, secret = read_variables(variables or {}, (*where, host), findings)
        for name in secret:
            findings.add((*where, host, name), "is a secret", "set it for all hosts: experiment.envs or deploy.secrets")
        found[host] = public
    return found


def read_host_engine_args(
    nodes: Mapping[str, NodeArgs | None], path: Path, findings: Findings
) -> dict[str, dict[str, Any]]:
    """The engine's flags of each host by its name or address, under vLLM's spelling."""
    found = {}
    for host, node in nodes.items():
        where = (*path, host, "engine_args")
        given = (node.engine_args if node else None) or {}
        flags = read_flags(given, where, findings)
        for written in (each for each in given if flag_name(each) in _SHARED):
            findings.add((*where, written), "is one for all hosts", "set it where the model is")
        if flags:
            found[host] = flags
    return found
