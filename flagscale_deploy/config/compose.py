"""Hydra's composition, as far as FlagScale's configurations use it: a `defaults:` list that mounts group files.

`defaults: [_self_, {serve: NAME}]` puts `serve/NAME.yaml`, found beside the file, under the key `serve`.
Later entries win; without `_self_` the file's own values come last (measured with hydra-core 1.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from flagscale_deploy.config.schema.places import Places
from flagscale_deploy.config.source import read_yaml
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.suggest import suggest

SELF = "_self_"


def compose(path: Path, choices: MutableMapping[str, str] | None = None) -> tuple[dict[str, Any], Places]:
    """The file with its groups, nothing resolved yet, and where each part came from.

    `choices` are groups picked on the command line (`serve=NAME`); what the defaults list has is taken out of it.
    A file that is a list by itself is the group `serve`. InputError for a file or group that is not there.
    """
    places = Places(str(path))
    own = read_yaml(path)
    if isinstance(own, list):
        places.groups["serve",] = str(path)
        return {"serve": own}, places
    if not isinstance(own, dict):
        found = "is empty" if own is None else f"holds {_kind(own)}"
        raise InputError.at(str(path), found, "expected model_args: and deploy:, or a list of - serve_id: …")
    choices = {} if choices is None else choices
    composed = _compose_groups(path, own, places, choices, (path.resolve(),))
    # As Hydra's +serve=NAME: a group that the defaults list does not have, and that has a folder.
    for group in [each for each in choices if _is_group(path, each)]:
        file = _find(path, group, choices.pop(group), optional=False)
        if file is not None:
            _merge(composed, _mounted(file, group, places, choices, (path.resolve(),)))
    return composed, places


def _compose_groups(
    path: Path, own: dict[str, Any], places: Places, choices: MutableMapping[str, str], above: tuple[Path, ...]
) -> dict[str, Any]:
    if "defaults" not in own:
        return own
    entries = list(_entries(path, own.pop("defaults")))
    if (None, SELF, False) not in entries:
        entries.append((None, SELF, False))
    result: dict[str, Any] = {}
    for group, name, optional in entries:
        if (group, name) == (None, SELF):
            _merge(result, own)
            continue
        if group is not None and len(above) > 1 and (group.startswith("/") or "@" in group):
            remedy = "write it in the file that is named on the command line"
            raise InputError.at(f"{path}: defaults.{group}", "is understood at the top only", remedy)
        name = choices.pop(_folder(group), name) if group is not None else name
        file = _find(path, group, name, optional)
        if file is not None:
            _merge(result, _mounted(file, group, places, choices, above))
    return result


def _entries(path: Path, defaults: Any) -> Iterator[tuple[str | None, str, bool]]:
    """Group (None: the root), name and whether it may be missing, for each entry that means anything to us."""
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if isinstance(entry, str):
            group, _, name = entry.strip("/").rpartition("/")
            yield group or None, name, False
        elif isinstance(entry, dict) and len(entry) == 1:
            ((key, names),) = entry.items()
            *signs, group = key.split() or [""]
            if "override" in signs or group.split("/")[0] == "hydra":
                continue
            for name in names if isinstance(names, list) else [names]:
                if name is not None:
                    yield group, str(name), "optional" in signs
        elif entry is not None:
            raise InputError.at(f"{path}: defaults", f"holds {_kind(entry)}", "expected _self_ or GROUP: NAME")


def _find(path: Path, group: str | None, name: str, optional: bool) -> Path | None:
    folder = path.parent / _folder(group or "")
    file = folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if _is_file(file):
        return file
    if optional:
        return None
    place = f"{path}: defaults" + (f".{group}" if group else "")
    if not folder.is_dir():
        raise InputError.at(
            place,
            f"{file} is not there, nor is its folder {folder}",
            "make that folder, or take the entry off defaults",
        )
    there = [each.stem for each in folder.glob("*.yaml") if each != path]
    remedy = f"{suggest(name, there)} (in {folder})" if there else f"{folder} holds no YAML file"
    raise InputError.at(place, f"{file} is not there", remedy)


def _folder(group: str) -> str:
    """A group's folder: `/serve@pkg` lies in `serve`."""
    return group.partition("@")[0].strip("/")


def _package(group: str) -> tuple[str, ...]:
    """Where a group is mounted: at the keys of its folder, or at the package behind `@`."""
    _, at, package = group.partition("@")
    if at:
        return () if package in ("_global_", "") else tuple(package.split("."))
    return tuple(_folder(group).split("/"))


def _is_group(path: Path, key: str) -> bool:
    try:
        return re.fullmatch(r"[\w/-]+", key) is not None and (path.parent / key).is_dir()
    except OSError:  # a name longer than the file system allows
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows
        return False


def _mounted(
    file: Path, group: str | None, places: Places, choices: MutableMapping[str, str], above: tuple[Path, ...]
) -> dict[str, Any]:
    """A group file's values under the keys of its group."""
    if file.resolve() in above:
        raise InputError.at(f"{file}: defaults", "includes itself", "take the entry off this list")
    value = read_yaml(file)
    keys = _package(group) if group else ()
    if isinstance(value, dict):
        value = _compose_groups(file, value, Places(str(file)), choices, (*above, file.resolve()))
    elif not (isinstance(value, list) and keys):
        raise InputError.at(str(file), "is empty" if value is None else f"holds {_kind(value)}", "expected settings")
    if keys:
        places.groups[keys] = str(file)
    for key in reversed(keys):
        value = {key: value}
    assert isinstance(value, dict), "a list is mounted below a key"
    return value


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    """Lay one mapping over another: mappings merge, everything else replaces."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else repr(value)
