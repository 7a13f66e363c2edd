"""Read `-c recipe:ORG/MODEL` and the words `hardware=…` and `strategy=…` beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree

PREFIX = "recipe:"
KEYS = ("hardware", "strategy")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
WORD = re.compile(r"[a-z0-9][a-z0-9_]{0,47}")
"""The name of a hardware or strategy. It becomes a part of a path."""
OTHER_STRATEGIES = "kv_store_"
"""Strategies that are refused by their names."""
MODEL_NAME = "vllm_model"
"""The model's key in the serve YAML."""
LONGEST_NAME = 63


@dataclass(frozen=True)
class Wish:
    """What was asked for. None: it is chosen by the GPUs of the hosts."""

    model: str
    hardware: str | None = None
    strategy: str | None = None


def is_recipe(config: str | None) -> bool:
    """Return whether `-c` names a recipe and not a file."""
    return config is not None and config.startswith(PREFIX)


def read_wish(config: str, words: Sequence[str]) -> tuple[Wish, tuple[str, ...]]:
    """Return what `-c` and the words ask for, and the other words: the overrides. Raises InputError."""
    model = config.removeprefix(PREFIX)
    if not MODEL.fullmatch(model):
        problem = f"found {quoted(model)}, expected ORG/MODEL"
        raise InputError.at("-c/--config", problem, "as in -c recipe:Qwen/Qwen3-32B")
    chosen: dict[str, str] = {}
    others = []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in KEYS or not equals:
            others.append(word)
            continue
        if not WORD.fullmatch(value):
            problem = f"found {quoted(value)}, expected a name of lower-case letters, digits and _"
            raise InputError.at(key, problem, "as in hardware=h200 strategy=multi_node_tp")
        chosen[key] = value
    if chosen.get("strategy", "").startswith(OTHER_STRATEGIES):
        problem = f"{chosen['strategy']} needs a store for the KV cache, which is not deployed here"
        raise InputError.at("strategy", problem, "name another strategy, as in strategy=single_node_tp")
    return Wish(model, **chosen), tuple(others)


def draft(config: str, wish: Wish) -> Document:
    """Return a serve YAML that has the names of the recipe's deployment and model, and nothing else of it."""
    tree: Tree = {
        "experiment": {"exp_name": default_name(wish.model)},
        "model_args": {MODEL_NAME: {"model": wish.model}},
    }
    return Document(config, tree, lambda _path: [(1, 1)])


def default_name(model: str) -> str:
    """Return the deployment's name where nothing else names it: the model's, without its organisation."""
    return model.rpartition("/")[2][:LONGEST_NAME]
