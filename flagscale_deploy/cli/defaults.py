"""Take options that the command line leaves out from the environment, else from the project file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.cli.project_file import ProjectFile, read_project_file
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import names_hosts
from flagscale_deploy.recipes.name import is_recipe

VARIABLES = {"inventory": "FLAGSCALE_DEPLOY_INVENTORY", "config": "FLAGSCALE_DEPLOY_CONFIG"}
OPTIONS = ("inventory", "limit", "forks", "config")


@dataclass(frozen=True)
class Default:
    """The value of an option that was not given; `source` is its variable or file, `where` its place in there."""

    value: object
    source: str
    where: str


def find_defaults(
    given: Mapping[str, object], environ: Mapping[str, str], *, plans: bool = False, contacts: bool = True
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return values for the options that are None in `given`, and notes that say where they are from.

    A `limit` counts only with the inventory of its own file. A `config` is left out where a name and an inventory are
    given and the command does not plan: it then needs none. `unnamed` is set where the inventory is the file's,
    `unnamed_config` where the configuration is, and the command plans and contacts hosts. Raises InputError for a
    project file with faults, for an empty variable, and for a file that is not there.
    """
    file = read_project_file()
    defaults = {
        option: default
        for option in OPTIONS
        if option in given and given[option] is None and (default := _default(option, file, environ)) is not None
    }
    inventory = defaults.get("inventory")
    if given.get("inventory") is not None or (inventory is not None and inventory.source != file.path):
        defaults.pop("limit", None)
    hosts_are_named = given.get("inventory") is not None or inventory is not None
    if given.get("name") is not None and hosts_are_named and not plans and not given.get("overrides"):
        defaults.pop("config", None)
    for option, default in defaults.items():
        _refuse_missing(option, default)
    values = {option: default.value for option, default in defaults.items()}
    if inventory is not None and inventory.source == file.path:
        values["unnamed"] = True
    if plans and contacts and "config" in defaults and defaults["config"].source == file.path:
        values["unnamed_config"] = True
    return values, (*file.notes, *_notes(defaults))


def _default(option: str, file: ProjectFile, environ: Mapping[str, str]) -> Default | None:
    variable = VARIABLES.get(option, "")
    if variable in environ:
        return Default(environ[variable], variable, variable)
    return Default(file.values[option], file.path, file.places[option]) if option in file.values else None


def _refuse_missing(option: str, default: Default) -> None:
    """Raise InputError for an empty variable, and for the path of a file that is not there."""
    if option not in VARIABLES:
        return
    text = str(default.value)
    if not text.strip():
        raise InputError.at(default.where, "it is empty", "unset it, or name a file")
    is_no_file = names_hosts(text) if option == "inventory" else is_recipe(text)
    if not os.path.exists(text) and not is_no_file:
        raise InputError.at(default.where, f"there is no file {text}", "correct the path, or give the option itself")


def _notes(defaults: Mapping[str, Default]) -> list[str]:
    """Return a line for each source: `defaults of flagscale-deploy.yaml: inventory hosts.yaml, limit rack1`."""
    texts: dict[str, list[str]] = {}
    for option, default in defaults.items():
        texts.setdefault(default.source, []).append(f"{option} {default.value}")
    return [f"defaults of {source}: {', '.join(values)}" for source, values in texts.items()]
