"""Validate a recipe, and translate its commands into a serve YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flagscale_deploy.config.pools import POOL_ROLES
from flagscale_deploy.config.schema.values import whole_number
from flagscale_deploy.config.source import dump_document
from flagscale_deploy.config.spec import PoolRole
from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.command import Command, read_command
from flagscale_deploy.recipes.dropped import FLAGS
from flagscale_deploy.recipes.name import MODEL_NAME, default_name
from flagscale_deploy.recipes.refused import OTHER
from flagscale_deploy.recipes.variables import read_variables
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree, Value

MOST_NODES = 1024
MOST_RANKS = 999_999
SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
T = TypeVar("T")


@dataclass(frozen=True)
class Pool:
    """The flags and variables of the engines that only prefill, or only decode."""

    flags: Tree = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One deployment of a model as vLLM's maintainers publish it; what the plan supplies is left out.

    `pools` are prefill and decode, of a recipe that runs them apart: what each has beside the common `flags` and `env`.
    """

    model: str
    hardware: str
    strategy: str
    nodes: int = 1
    flags: Tree = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[PoolRole, Pool] = field(default_factory=dict)
    policy: str | None = None
    """The policy of the router before the pools."""

    @property
    def gpus(self) -> int:
        """Return the GPUs of all nodes: tensor × pipeline × data parallel size, of both pools."""
        return sum(ranks({**self.flags, **pool.flags}) for pool in self.pools.values() or (Pool(),))


def ranks(flags: Mapping[str, Value]) -> int:
    """Return tensor × pipeline × data parallel size."""
    return math.prod(int(str(flags.get(size, 1))) for size in SIZES)


def read_recipe(document: object, where: str, hardware: str, strategy: str) -> Recipe:
    """Return the recipe in a JSON document of the site's form; `where` is its file or URL.

    Raises InputError with file, key path, what was found and what was expected.
    """
    if not isinstance(document, dict):
        raise InputError.at(where, f"found {quoted(document)}, expected a JSON object", OTHER)
    for key, expected in (("hardware", hardware), ("strategy", strategy)):
        if document.get(key) != expected:
            raise InputError.at(f"{where}: {key}", f"found {quoted(document.get(key))}, expected {expected}", OTHER)
    if document.get("companions"):
        problem = "found companion processes, which are not deployed here"
        raise InputError.at(f"{where}: companions", problem, "name another strategy")
    kind = document.get("deploy_type")
    if kind == "pd_cluster":
        return _read_pools(document, where, hardware, strategy)
    if kind not in ("single_node", "multi_node"):
        problem = f"found {quoted(kind)}, expected single_node, multi_node or pd_cluster"
        raise InputError.at(f"{where}: deploy_type", problem, OTHER)
    if kind == "multi_node":
        nodes, command = _read_nodes(document, where)
    else:
        nodes, command = 1, _read_node(document.get("argv"), f"{where}: argv", 1)
    env = read_variables(document.get("env"), f"{where}: env")
    return Recipe(command.model, hardware, strategy, nodes, command.flags, env)


def serve_tree(recipe: Recipe) -> Tree:
    """Return the serve YAML of a recipe."""
    deploy: Tree = {"ray": "auto"}
    if recipe.nodes > max(1, len(recipe.pools)):
        deploy["executor"] = "mp"
    if recipe.policy is not None:
        deploy["router"] = {"policy": recipe.policy}
    if recipe.pools:
        deploy["models"] = {MODEL_NAME: {role: _pool_tree(pool) for role, pool in recipe.pools.items()}}
    envs: Tree = {"envs": dict(recipe.env)} if recipe.env else {}
    return {
        "experiment": {"exp_name": default_name(recipe.model), **envs},
        "model_args": {MODEL_NAME: {"model": recipe.model, **recipe.flags}},
        "deploy": deploy,
    }


def _pool_tree(pool: Pool) -> Tree:
    return {key: value for key, value in (("engine_args", pool.flags), ("env", dict(pool.env))) if value}


def serve_yaml(recipe: Recipe) -> str:
    """Return the serve YAML of a recipe as text."""
    return dump_document(serve_tree(recipe))


def _read_nodes(document: Mapping[str, object], where: str) -> tuple[int, Command]:
    """Return the number of nodes and their common command. Raises InputError where commands differ in more than place.

    `worker_argvs` are those of the nodes after the first.
    """
    nodes = whole_number(document.get("node_count"), 2, MOST_NODES)
    workers = document.get("worker_argvs")
    if nodes is None or not isinstance(workers, list) or len(workers) != nodes - 1:
        problem = f"found {quoted(document.get('node_count'))} nodes, expected one more than there are worker_argvs"
        raise InputError.at(f"{where}: node_count", problem, OTHER)
    head = _read_node(document.get("head_argv"), f"{where}: head_argv", nodes)
    for index, argv in enumerate(workers):
        place = f"{where}: worker_argvs.{index}"
        worker = _read_node(argv, place, nodes)
        if worker != head:
            names = [flag for flag in {**worker.flags, **head.flags} if worker.flags.get(flag) != head.flags.get(flag)]
            expected = ", ".join(f"--{flag}" for flag in names) or "the model"
            raise InputError.at(place, "found another command", f"expected the same as head_argv for {expected}")
    return nodes, head


def _read_node(argv: object, where: str, nodes: int) -> Command:
    """Return a node's command without what the plan supplies. Raises InputError where nodes have unequal shares."""
    command = read_command(argv, where)
    for size in SIZES:
        value = command.flags.get(size, 1)
        if whole_number(value, 1, MOST_RANKS) is None:
            raise InputError.at(f"{where}: {size}", f"found {quoted(value)}, expected a whole number from 1", OTHER)
    local = command.flags.get("data-parallel-size-local")
    share = whole_number(local, 1, MOST_RANKS)
    if local is not None and (share is None or str(command.flags.get("data-parallel-size", 1)) != str(share * nodes)):
        problem = f"found {quoted(local)}, expected an equal share of data-parallel-size on each of {nodes} nodes"
        raise InputError.at(f"{where}: data-parallel-size-local", problem, OTHER)
    if ranks(command.flags) % nodes:
        problem = f"found {ranks(command.flags)} ranks, expected a multiple of the {nodes} nodes"
        raise InputError.at(where, problem, OTHER)
    return Command(command.model, {flag: value for flag, value in command.flags.items() if flag not in FLAGS})


def _read_pools(document: Mapping[str, object], where: str, hardware: str, strategy: str) -> Recipe:
    """Return a recipe of prefill and decode apart: one engine each. What both have is the model's."""
    servers = [_server(document, role, where) for role in POOL_ROLES]
    prefill, decode = servers
    if prefill.command.model != decode.command.model:
        problem = f"found {quoted(decode.command.model)}, expected {prefill.command.model} as in prefill"
        raise InputError.at(f"{where}: decode.argv", problem, OTHER)
    flags, env = _common(prefill.command.flags, decode.command.flags), _common(prefill.env, decode.env)
    pools = {
        role: Pool(_beside(server.command.flags, flags), _beside(server.env, env))
        for role, server in zip(POOL_ROLES, servers, strict=True)
    }
    return Recipe(
        model=prefill.command.model,
        hardware=hardware,
        strategy=strategy,
        nodes=prefill.nodes + decode.nodes,
        flags=flags,
        env=read_variables(document.get("env"), f"{where}: env") | env,
        pools=pools,
        policy=_policy(document, where),
    )


@dataclass(frozen=True)
class _Server:
    """The engine of a pool: the command of its first node, its variables, and its number of nodes."""

    command: Command
    env: Mapping[str, str]
    nodes: int


def _server(document: Mapping[str, object], role: str, where: str) -> _Server:
    """Return the engine of a pool; pools that share a node have 0 nodes in the recipe."""
    pool = _mapping(document, role, where)
    nodes = whole_number(pool.get("nodes"), 0, MOST_NODES)
    if nodes is None:
        problem = f"found {quoted(pool.get('nodes'))}, expected a whole number of nodes"
        raise InputError.at(f"{where}: {role}.nodes", problem, OTHER)
    nodes = max(1, nodes)
    command = _read_node(pool.get("argv"), f"{where}: {role}.argv", nodes)
    return _Server(command, read_variables(pool.get("env"), f"{where}: {role}.env"), nodes)


def _common(one: Mapping[str, T], other: Mapping[str, T]) -> dict[str, T]:
    """Return what two mappings have both, with the same value."""
    return {key: value for key, value in one.items() if other.get(key) == value}


def _beside(mapping: Mapping[str, T], common: Mapping[str, T]) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key not in common}


def _policy(document: Mapping[str, object], where: str) -> str | None:
    """Return the router's policy. Raises InputError for what is no word; the serve YAML knows the policies."""
    if document.get("router_config") is None:
        return None
    policy = _mapping(document, "router_config", where).get("policy")
    if not isinstance(policy, str) or not policy.isidentifier():
        raise InputError.at(f"{where}: router_config.policy", f"found {quoted(policy)}, expected a word", OTHER)
    return policy


def _mapping(document: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise InputError.at(f"{where}: {key}", f"found {quoted(value)}, expected a JSON object", OTHER)
    return value
