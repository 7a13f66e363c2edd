"""Choose hardware and strategy of a recipe by the GPUs of the hosts, and say why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.library import Library, find_recipe, hardware_of, listed, path_of_hardware, strategies_of
from flagscale_deploy.recipes.name import Wish
from flagscale_deploy.recipes.recipe import Recipe
from flagscale_deploy.support.units import counted

ORDER = (
    "single_node_tp",
    "single_node_tep",
    "single_node_dep",
    "multi_node_tp",
    "multi_node_tep",
    "multi_node_tp_pp",
    "multi_node_tp_dp",
    "multi_node_dep",
)
"""Strategies that are chosen without being named, the first that fits: one host where it can be."""
_PART = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class HostGpus:
    """The GPUs of a host: their number, and their name, "" where it is not known."""

    count: int
    name: str = ""


@dataclass(frozen=True)
class Choice:
    """A recipe, and why its hardware and strategy were chosen: a line for each that nobody named."""

    recipe: Recipe
    reasons: tuple[str, ...] = ()


def choose(library: Library, wish: Wish, hosts: Mapping[str, HostGpus]) -> Choice:
    """Return the recipe that was asked for; what was left open is chosen by `hosts`. Raises InputError."""
    reasons = []
    hardware, strategy = wish.hardware, wish.strategy
    if hardware is None:
        hardware, reason = _choose_hardware(hardware_of(library, wish.model), hosts)
        reasons.append(reason)
    if strategy is not None:
        return Choice(find_recipe(library, wish.model, hardware, strategy), tuple(reasons))
    paths = strategies_of(library, wish.model, hardware)
    recommended = next((name for name, path in paths.items() if path == path_of_hardware(wish.model, hardware)), "")
    names = sorted({*ORDER} & paths.keys(), key=lambda name: (name != recommended, ORDER.index(name)))
    recipes = (find_recipe(library, wish.model, hardware, name) for name in names)
    recipe, reason = _choose_strategy(recipes, hosts, wish.model)
    if recipe.strategy == recommended:
        reason = f"{reason}; the site recommends it for {hardware}"
    return Choice(recipe, (*reasons, reason))


def _choose_hardware(names: Sequence[str], hosts: Mapping[str, HostGpus]) -> tuple[str, str]:
    """Return the hardware whose name is a part of the name of the hosts' GPUs, and why."""
    gpus = sorted({host.name for host in hosts.values() if host.count and host.name})
    remedy = f"name it, as in hardware={names[0]}; {listed(gpus[0] if gpus else '', names)}"
    if not gpus:
        raise InputError.at("hardware", "the names of the hosts' GPUs are not known", remedy)
    matching = {name for gpu in gpus for name in names if name in _PART.findall(gpu.lower())}
    if len(matching) != 1 or any(not matching & {*_PART.findall(gpu.lower())} for gpu in gpus):
        raise InputError.at("hardware", f"the hosts have {', '.join(gpus)}, expected one of the recipes'", remedy)
    hardware = matching.pop()
    return hardware, f"hardware {hardware}: the hosts have {', '.join(gpus)}"


def _choose_strategy(recipes: Iterable[Recipe], hosts: Mapping[str, HostGpus], model: str) -> tuple[Recipe, str]:
    """Return the first recipe that the hosts have the GPUs for, and why."""
    most = max((host.count for host in hosts.values()), default=0)
    tried = []
    for recipe in recipes:
        share = recipe.gpus // recipe.nodes
        able = [name for name, host in hosts.items() if host.count >= share]
        if len(able) >= recipe.nodes:
            return recipe, f"strategy {recipe.strategy}: {_why(recipe, able, most)}"
        tried.append(f"{recipe.strategy} needs {counted(recipe.nodes, 'host')} with {counted(share, 'GPU')}")
    have = ", ".join(f"{name} {host.count}" for name, host in list(hosts.items())[:8])
    problem = f"{'; '.join(tried) or f'{model} has none that is chosen by itself'}; GPUs of the hosts: {have}"
    raise InputError.at("strategy", problem, "name one, as in strategy=pd_cluster; or give more hosts")


def _why(recipe: Recipe, able: Sequence[str], most: int) -> str:
    if recipe.nodes == 1:
        return f"{able[0]} has the {counted(recipe.gpus, 'GPU')} that are needed"
    if recipe.gpus > most:
        return f"{recipe.gpus} GPUs are needed and no host has more than {most}"
    share = counted(recipe.gpus // recipe.nodes, "GPU")
    return f"{counted(recipe.nodes, 'host')} with {share} are needed, and there are {len(able)}"
