"""Find a recipe in a folder or on the site: its hardware, its strategies, and its document."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.name import MODEL, OTHER_STRATEGIES, WORD
from flagscale_deploy.recipes.recipe import Recipe, read_recipe
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.yaml import refuse_bombs

MOST_LISTED = 10
MOST_MODELS = 20_000
"""As many are compared with a name that is not there."""
_LINK = re.compile(
    r"/([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}/(?:hw/\w{1,48}/)?strategies/\w{1,48}\.json)",
    re.ASCII,
)


class Library(Protocol):
    """Where recipes are read from. Paths are those of the site, without the first slash."""

    def where(self, path: str) -> str:
        """Return the place of a path, for messages."""

    def get(self, path: str) -> str | None:
        """Return the text at a path, None where there is none."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, none where that cannot be listed."""


def hardware_of(library: Library, model: str) -> list[str]:
    """Return the hardware that a model has recipes for. Raises InputError with the nearest models where it has none."""
    names = {name.removesuffix(".json") for name in library.names(f"{model}/hw")}
    index = _read(library, f"{model}.json")
    command = index.get("recommended_command") if isinstance(index, dict) else None
    by_hardware = command.get("by_hardware") if isinstance(command, dict) else None
    names |= by_hardware.keys() if isinstance(by_hardware, dict) else set()
    hardware = sorted(filter(WORD.fullmatch, names))
    if not hardware:
        problem = f"found {model}, expected a model that has recipes in {library}"
        raise InputError.at("-c/--config", problem, listed(model, _models(library)))
    return hardware


def path_of_hardware(model: str, hardware: str) -> str:
    """Return the path of a hardware's file: its recommended strategy, and links to the others."""
    return f"{model}/hw/{hardware}.json"


def strategies_of(library: Library, model: str, hardware: str) -> dict[str, str]:
    """Return the path of each strategy of a model on a hardware, the recommended one first. Raises InputError."""
    path = path_of_hardware(model, hardware)
    index = _read(library, path)
    paths: dict[str, str] = {}
    if isinstance(index, dict):
        paths[str(index.get("strategy"))] = path
        links = index.get("alternatives")
        for name, link in links.items() if isinstance(links, dict) else ():
            match = _LINK.fullmatch(link) if isinstance(link, str) else None
            if match is None:
                problem = f"found {quoted(link)}, expected /ORG/REPO/…/STRATEGY.json"
                raise InputError.at(f"{library.where(path)}: alternatives.{name}", problem, "name another strategy")
            paths.setdefault(name, match[1])
    folder = f"{model}/hw/{hardware}/strategies"
    for name in library.names(folder):
        paths.setdefault(name.removesuffix(".json"), f"{folder}/{name}")
    if not paths:
        problem = f"found {hardware}, expected hardware that {model} has recipes for"
        raise InputError.at("hardware", problem, listed(hardware, hardware_of(library, model)))
    return {name: path for name, path in paths.items() if WORD.fullmatch(name)}


def find_recipe(library: Library, model: str, hardware: str, strategy: str) -> Recipe:
    """Return a recipe by its names. Raises InputError with those that exist."""
    path = f"{model}/hw/{hardware}/strategies/{strategy}.json"
    document = _read(library, path)
    if document is None:
        paths = strategies_of(library, model, hardware)
        if strategy not in paths:
            problem = f"found {strategy}, expected a strategy that {model} has recipes for on {hardware}"
            names = [name for name in paths if not name.startswith(OTHER_STRATEGIES)]
            raise InputError.at("strategy", problem, listed(strategy, names))
        path = paths[strategy]
        document = _read(library, path)
    recipe = read_recipe(document, library.where(path), hardware, strategy)
    if _organisation(recipe.model) != _organisation(model):
        problem = f"found a recipe of {recipe.model}, expected a model of {model.partition('/')[0]}"
        raise InputError.at(library.where(path), problem, "name that model, or correct the recipe")
    return recipe


def _organisation(model: str) -> str:
    """Return who publishes a model; Hugging Face takes both cases of its letters."""
    return model.partition("/")[0].lower()


def listed(word: str, names: Iterable[str]) -> str:
    """Return the names that there are, the nearest first."""
    near = sorted({*names}, key=lambda name: (-difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio(), name))
    if not near:
        return "there are none: correct --recipes, or name another model"
    more = f", and {len(near) - MOST_LISTED:,} more" if len(near) > MOST_LISTED else ""
    return f"there are: {', '.join(near[:MOST_LISTED])}{more}"


def _models(library: Library) -> list[str]:
    index = _read(library, "models.json")
    entries = index[:MOST_MODELS] if isinstance(index, list) else []
    names = [str(entry.get("hf_id")) for entry in entries if isinstance(entry, Mapping)]
    if not names:
        below = (f"{org}/{repo}" for org in library.names("") for repo in library.names(org))
        names = list(islice(below, MOST_MODELS))
    return [name for name in names if MODEL.fullmatch(name)]


def _read(library: Library, path: str) -> object:
    """Return the JSON at a path, None where there is none. Raises InputError."""
    text = library.get(path)
    if text is None:
        return None
    where = library.where(path)
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = f"found no JSON: {error}" if isinstance(error, ValueError) else "is nested too deeply"
        raise InputError.at(where, problem, "correct the file, or name another place with --recipes") from error
    refuse_bombs(value, where)
    return value
