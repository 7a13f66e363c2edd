"""Validate a recipe, and translate its commands into a serve YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.config.schema.values import whole_number
from flagscale_deploy.config.source import dump_document
from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.command import Command, read_command, read_text
from flagscale_deploy.recipes.dropped import FLAGS, VARIABLES
from flagscale_deploy.recipes.name import MODEL_NAME, default_name
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree, Value

MOST_NODES = 1024
MOST_VARIABLES = 200
MOST_RANKS = 999_999
SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
_OF_THE_SYSTEM = re.compile(
    r"(?:LD|BASH|SSL|GIT|SSH)_.*|.*_PROXY|PYTHON(?!NOUSERSITE$|HASHSEED$|UNBUFFERED$).*"
    r"|PATH|HOME|SHELL|ENV|IFS|USER|TMPDIR"
)
"""Variables that decide which programs and libraries run, or whom they talk to."""
_OTHER = "correct the recipe, or name another strategy"


@dataclass(frozen=True)
class Recipe:
    """One deployment of a model as vLLM's maintainers publish it; what the plan supplies is left out."""

    model: str
    hardware: str
    strategy: str
    nodes: int = 1
    flags: Tree = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """Return the GPUs of all nodes: tensor × pipeline × data parallel size."""
        return math.prod(int(str(self.flags.get(size, 1))) for size in SIZES)


def read_recipe(document: object, where: str, hardware: str, strategy: str) -> Recipe:
    """Return the recipe in a JSON document of the site's form; `where` is its file or URL.

    Raises InputError with file, key path, what was found and what was expected.
    """
    if not isinstance(document, dict):
        raise InputError.at(where, f"found {quoted(document)}, expected a JSON object", _OTHER)
    for key, expected in (("hardware", hardware), ("strategy", strategy)):
        if document.get(key) != expected:
            raise InputError.at(f"{where}: {key}", f"found {quoted(document.get(key))}, expected {expected}", _OTHER)
    if document.get("companions"):
        problem = "found companion processes, which are not deployed here"
        raise InputError.at(f"{where}: companions", problem, "name another strategy")
    kind = document.get("deploy_type")
    if kind == "pd_cluster":
        return _read_pools(document, where)
    if kind not in ("single_node", "multi_node"):
        problem = f"found {quoted(kind)}, expected single_node, multi_node or pd_cluster"
        raise InputError.at(f"{where}: deploy_type", problem, _OTHER)
    nodes, command = _read_nodes(document, where) if kind == "multi_node" else (1, _read_argv(document, where))
    recipe = Recipe(command.model, hardware, strategy, nodes, command.flags, _read_env(document.get("env"), where))
    _refuse_sizes(recipe, where)
    return recipe


def serve_tree(recipe: Recipe) -> Tree:
    """Return the serve YAML of a recipe."""
    deploy: Tree = {"ray": "auto"}
    if recipe.nodes > 1:
        deploy["executor"] = "mp"
    envs: Tree = {"envs": dict(recipe.env)} if recipe.env else {}
    return {
        "experiment": {"exp_name": default_name(recipe.model), **envs},
        "model_args": {MODEL_NAME: {"model": recipe.model, **recipe.flags}},
        "deploy": deploy,
    }


def serve_yaml(recipe: Recipe) -> str:
    """Return the serve YAML of a recipe as text."""
    return dump_document(serve_tree(recipe))


def _read_argv(document: Mapping[str, object], where: str) -> Command:
    return _kept(read_command(document.get("argv"), f"{where}: argv"))


def _read_nodes(document: Mapping[str, object], where: str) -> tuple[int, Command]:
    """Return the number of nodes and their common command. Raises InputError where commands differ in more than place.

    `worker_argvs` are those of the nodes after the first.
    """
    head = read_command(document.get("head_argv"), f"{where}: head_argv")
    nodes = whole_number(document.get("node_count"), 2, MOST_NODES)
    workers = document.get("worker_argvs")
    if nodes is None or not isinstance(workers, list) or len(workers) != nodes - 1:
        problem = f"found {quoted(document.get('node_count'))} nodes, expected one more than there are worker_argvs"
        raise InputError.at(f"{where}: node_count", problem, _OTHER)
    for index, argv in enumerate(workers):
        place = f"{where}: worker_argvs.{index}"
        worker = read_command(argv, place)
        if _kept(worker) != _kept(head):
            both = {**_kept(worker).flags, **_kept(head).flags}
            flags = [flag for flag in both if _kept(worker).flags.get(flag) != _kept(head).flags.get(flag)]
            expected = ", ".join(f"--{flag}" for flag in flags) or "the model"
            raise InputError.at(place, "found another command", f"expected the same as head_argv for {expected}")
    local = head.flags.get("data-parallel-size-local")
    share = whole_number(local, 1, MOST_RANKS)
    if local is not None and (share is None or str(head.flags.get("data-parallel-size", 1)) != str(share * nodes)):
        problem = f"found {quoted(local)}, expected an equal share of data-parallel-size on each of {nodes} nodes"
        raise InputError.at(f"{where}: head_argv: data-parallel-size-local", problem, _OTHER)
    return nodes, _kept(head)


def _read_pools(document: Mapping[str, object], where: str) -> Recipe:
    """Raise InputError: prefill and decode pools are not deployed yet."""
    problem = f"{document['strategy']} runs prefill and decode apart, which is not deployed here yet"
    raise InputError.at(f"{where}: deploy_type", problem, "name another strategy, as in strategy=single_node_tp")


def _kept(command: Command) -> Command:
    """Return a command without what the plan supplies."""
    return Command(command.model, {flag: value for flag, value in command.flags.items() if flag not in FLAGS})


def _read_env(env: object, where: str) -> dict[str, str]:
    """Return the variables of every node without those that the plan supplies."""
    if not isinstance(env, dict) or len(env) > MOST_VARIABLES:
        held = quoted(env) if not isinstance(env, dict) else f"{len(env):,} variables"
        raise InputError.at(f"{where}: env", f"found {held}, expected at most {MOST_VARIABLES} variables", _OTHER)
    variables: dict[str, str] = {}
    for name, value in env.items():
        place = f"{where}: env.{name}"
        if not _NAME.fullmatch(name) or _OF_THE_SYSTEM.fullmatch(name) or is_secret_name(name):
            raise InputError.at(place, f"found {quoted(name)}, expected a variable of vLLM or its libraries", _OTHER)
        text = read_text(value, place)
        if name in VARIABLES:
            continue
        if "$" in text:
            problem = f"found {quoted(text)}, expected no placeholder there"
            raise InputError.at(place, problem, "this tool fills in none of that name: correct the recipe")
        variables[name] = text
    return variables


def _refuse_sizes(recipe: Recipe, where: str) -> None:
    """Raise InputError for sizes that are no numbers, or that the nodes cannot share."""
    for size in SIZES:
        value: Value = recipe.flags.get(size, 1)
        if whole_number(value, 1, MOST_RANKS) is None:
            raise InputError.at(f"{where}: {size}", f"found {quoted(value)}, expected a whole number from 1", _OTHER)
    if recipe.gpus % recipe.nodes:
        problem = f"found {recipe.nodes}, expected a divisor of the {recipe.gpus} ranks"
        raise InputError.at(f"{where}: node_count", problem, _OTHER)
