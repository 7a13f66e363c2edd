"""The project file, `flagscale-deploy.yaml`: what stands for options that the command line leaves out."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flagscale_deploy.cli.option_types import MOST_FORKS
from flagscale_deploy.errors import MOST_FAULTS, Fault, InputError, at_most
from flagscale_deploy.inventory.load import names_hosts
from flagscale_deploy.recipes.name import is_recipe
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import part_of_another_user, refuse_planted
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.yaml import Loader, load_with_nodes, places_of_keys

NAME = "flagscale-deploy.yaml"
_KEYS = {
    "inventory": "the path of an inventory, or hosts as for -i",
    "config": "the path of a serve YAML, or recipe:ORG/MODEL",
    "limit": "a host pattern as text",
    "forks": f"a whole number from 1 to {MOST_FORKS:,}",
}
_PATHS = ("inventory", "config")


@dataclass(frozen=True)
class ProjectFile:
    """The values of a project file, and where each stands; nothing where there is none."""

    path: str = NAME
    values: Mapping[str, object] = field(default_factory=dict)
    """By key. Paths start at the working directory."""
    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Why a file is not read."""


def read_project_file() -> ProjectFile:
    """Return the project file of the working directory, else the nearest one above it.

    As Ansible does with `ansible.cfg`, leave one alone that others may write; also one that another user owns.
    Raises InputError with every fault of the file.
    """
    path = _nearest()
    if path is None:
        return ProjectFile()
    distrust = _distrust(path)
    if distrust:
        return ProjectFile(notes=(f"{path} is not read: {distrust}",))
    return _parsed(read_text(path), path)


def _nearest() -> Path | None:
    """Return the path from the working directory: `flagscale-deploy.yaml`, `../flagscale-deploy.yaml`, ….

    None where there is no such file, or no working directory any more.
    """
    try:
        levels = len(Path.cwd().parts)
    except OSError:
        return None
    paths = (Path(*[os.pardir] * level, NAME) for level in range(levels))
    return next((path for path in paths if os.path.lexists(path)), None)


def _distrust(path: Path) -> str:
    """Return why a file may be somebody else's work, "" where it is not: an inventory may name programs to run."""
    try:
        folder, file = os.stat(path.parent), os.stat(path)
    except OSError:
        return ""  # reading it tells why
    if folder.st_mode & stat.S_IWOTH:
        return "everybody may write to its directory"
    if file.st_mode & stat.S_IWOTH and stat.S_ISREG(file.st_mode):
        return "everybody may write to it"
    is_others = part_of_another_user(path.parent, path, named=False) or file.st_uid not in (0, os.geteuid())
    return "it belongs to another user" if is_others else ""


def _parsed(text: str, path: Path) -> ProjectFile:
    document, root, faults = load_with_nodes(Loader, text, str(path))
    if document is None:
        return ProjectFile(str(path))
    if not isinstance(document, dict):
        raise InputError.at(f"{path}:1:1", f"found {quoted(document)}, expected a mapping", f"keys: {', '.join(_KEYS)}")
    places = places_of_keys(root, str(path))
    for key, (at_key, at_value) in places.items():
        value = document.get(key)
        if key not in _KEYS:
            remedy = suggest(key, _KEYS) if len(faults) <= MOST_FAULTS else ""
            faults.append(Fault(f"{at_key}: {key}", "unknown key", remedy))
        elif not _fits(key, value):
            problem = f"found {'nothing' if value is None else quoted(value)}, expected {_KEYS[key]}"
            faults.append(Fault(f"{at_value}: {key}", problem, _remedy(key, value)))
    if faults:
        raise InputError(at_most(faults, str(path)))
    values = {key: _beside(value, path.parent, key) if key in _PATHS else value for key, value in document.items()}
    return ProjectFile(str(path), values, {key: f"{at_value}: {key}" for key, (_, at_value) in places.items()})


def _fits(key: str, value: object) -> bool:
    if key == "forks":
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_FORKS
    return isinstance(value, str) and value.strip() != ""


def _remedy(key: str, value: object) -> str:
    if key == "forks":
        return "forks: 64"
    return "put it in quotes" if isinstance(value, bool | int | float) else "write one text, or take the key out"


def _beside(text: str, folder: Path, key: str) -> str:
    """Return a path of the file: a relative one starts at the file. Hosts and recipes stay as they are."""
    if key == "config" and is_recipe(text):
        return text
    beside = str(folder / os.path.expanduser(text))
    if key == "inventory" and names_hosts(text) and not os.path.exists(beside):
        return text
    refuse_planted(folder, Path(beside))
    return beside
