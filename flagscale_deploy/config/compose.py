"""Compose a configuration as Hydra does, as far as FlagScale uses it: a `defaults:` list that mounts group files.

`defaults: [_self_, {serve: NAME}]` puts `serve/NAME.yaml`, found beside the file, under the key `serve`.
Later entries win; without `_self_` the file's own values come last (measured with hydra-core 1.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, MutableMapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from flagscale_deploy.config.schema.places import Document, Places
from flagscale_deploy.config.schema.validate import kind_of
from flagscale_deploy.config.source import read_yaml
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.units import MIB, format_size
from flagscale_deploy.support.value import Tree, Value

SELF = "_self_"
MOST_FILES = 200
MOST_BYTES = 4 * MIB
"""What the files of all groups may have together, each as often as it is mounted: as much as one file."""
LONGEST_PATH = 1024


@dataclass
class _Composition:
    """What the files of one composition share: the groups that were picked, how many files were mounted, their size.

    Each file is read once, however often it is mounted.
    """

    choices: MutableMapping[str, str]
    files: int = 0
    size: int = 0
    documents: dict[Path, tuple[Document, int]] = field(default_factory=dict)

    def read(self, file: Path, where: str) -> Document:
        """Return a document of its own for each mount. Raises InputError for more than all groups may have."""
        if file not in self.documents:
            self.documents[file] = read_yaml(file), os.stat(file).st_size
        document, size = self.documents[file]
        self.files, self.size = self.files + 1, self.size + size
        if self.files > MOST_FILES:
            raise InputError.at(where, f"is one of more than {MOST_FILES} files", "name fewer groups")
        if self.size > MOST_BYTES:
            raise InputError.at(where, f"makes all groups larger than {format_size(MOST_BYTES)}", "name fewer groups")
        return replace(document, value=deepcopy(document.value))


def compose(source: Path | Document, choices: MutableMapping[str, str] | None = None) -> tuple[Tree, Places]:
    """Return a file, or a document in place of one, with its groups, and where each part came from.

    Nothing is resolved yet.

    `choices` are groups picked on the command line (`serve=NAME`); those that are used are removed from it.
    A file that is a list by itself is the group `serve`. Raises InputError for a file or group that is not there.
    """
    document = source if isinstance(source, Document) else read_yaml(source)
    path = Path(document.file)
    places, own = Places(document), document.value
    if isinstance(own, list):
        places.layers.append((("serve",), document))
        return {"serve": own}, places
    if not isinstance(own, dict):
        problem = "is empty" if own is None else "holds one value"
        raise InputError.at(places.where(()), problem, "expected model_args: and deploy:, or a list of - serve_id: …")
    choices = {} if choices is None else choices
    run = _Composition(choices)
    composed = _compose_groups(path, own, places, run, (path.resolve(),))
    # As Hydra's +serve=NAME: a group that the defaults list does not have, and that has a folder.
    for group in [choice for choice in choices if _is_group(path, choice)]:
        file = _find(path, group, choices.pop(group), optional=False, where=f"override {group}")
        if file is not None:
            merge(composed, _mounted(file, group, places, run, (path.resolve(),)))
    return composed, places


def _compose_groups(path: Path, own: Tree, places: Places, run: _Composition, above: tuple[Path, ...]) -> Tree:
    if "defaults" not in own:
        places.layers.append(((), places.own))
        return own
    where = places.own.where(("defaults",))
    entries = list(_entries(where, own.pop("defaults")))
    if (None, SELF, False) not in entries:
        entries.append((None, SELF, False))
    result: Tree = {}
    for group, name, optional in entries:
        if (group, name) == (None, SELF):
            merge(result, own)
            places.layers.append(((), places.own))
            continue
        if group is not None and len(above) > 1 and (group.startswith("/") or "@" in group):
            remedy = "write it in the file that is named on the command line"
            raise InputError.at(f"{where}.{group}", "is supported at the top only", remedy)
        picked = group is not None and _folder(group) in run.choices
        name = run.choices.pop(_folder(group), name) if group is not None else name
        place = f"override {_folder(group)}" if group is not None and picked else where + (f".{group}" if group else "")
        file = _find(path, group, name, optional, place)
        if file is not None:
            merge(result, _mounted(file, group, places, run, above))
    return result


def _entries(where: str, defaults: Value) -> Iterator[tuple[str | None, str, bool]]:
    """Yield group (None: the root), name and whether it may be missing, of each entry that composes something."""
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if isinstance(entry, str):
            group, _, name = entry.strip("/").rpartition("/")
            yield group or None, name, False
        elif isinstance(entry, dict) and len(entry) == 1:
            ((key, names),) = entry.items()
            *signs, group = key.split() or [""]
            if "override" in signs or group.split("/")[0] == "hydra":
                continue
            for file in names if isinstance(names, list) else [names]:
                if file is not None:
                    yield group, str(file), "optional" in signs
        elif entry is not None:
            raise InputError.at(where, f"holds {kind_of(entry)}", "expected _self_ or GROUP: NAME")


def _find(path: Path, group: str | None, name: str, optional: bool, where: str) -> Path | None:
    folder = path.parent / _folder(group or "")
    file = folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if len(str(file)) > LONGEST_PATH:
        raise InputError.at(where, f"names a file of {len(str(file)):,} characters", "correct its name")
    if os.path.isfile(file):  # False, where Path.is_file would raise, for a name that no file can have
        refuse_planted(path.parent, file)
        return file
    if optional:
        return None
    if not os.path.isdir(folder):
        raise InputError.at(
            where,
            f"neither {file} nor its folder {folder} is there",
            "make that folder, or remove the entry from defaults",
        )
    names = [other.stem for other in folder.glob("*.yaml") if other != path]
    remedy = f"{suggest(name, names)} (in {folder})" if names else f"{folder} holds no YAML file"
    raise InputError.at(where, f"{file} is not there", remedy)


def _folder(group: str) -> str:
    """Return a group's folder: `/serve@pkg` lies in `serve`."""
    return group.partition("@")[0].strip("/")


def _package(group: str) -> tuple[str, ...]:
    """Return where a group is mounted: at the keys of its folder, or at the package behind `@`."""
    _, at, package = group.partition("@")
    if at:
        return () if package in ("_global_", "") else tuple(package.split("."))
    return tuple(_folder(group).split("/"))


def _is_group(path: Path, key: str) -> bool:
    return re.fullmatch(r"[\w/-]+", key) is not None and os.path.isdir(path.parent / key)


def _mounted(file: Path, group: str | None, places: Places, run: _Composition, above: tuple[Path, ...]) -> Tree:
    """Return a group file's values under the keys of its group."""
    document = run.read(file, str(file))
    value, where, inner = document.value, document.where(("defaults",)), Places(document)
    if file.resolve() in above:
        raise InputError.at(where, "includes itself", "remove the entry from this list")
    keys = _package(group) if group else ()
    if isinstance(value, dict):
        value = _compose_groups(file, value, inner, run, (*above, file.resolve()))
    elif not (isinstance(value, list) and keys):
        problem = "is empty" if value is None else "holds a list" if isinstance(value, list) else "holds one value"
        raise InputError.at(document.where(()), problem, "expected settings")
    layers = inner.layers or [((), document)]
    places.layers += [((*keys, *mount), layer) for mount, layer in layers]
    for key in reversed(keys):
        value = {key: value}
    assert isinstance(value, dict), "a list is mounted below a key"
    return value


def merge(below: Tree, above: Tree) -> None:
    """Lay one mapping over another, in place: mappings merge, everything else is replaced."""
    for key, value in above.items():
        lower = below.get(key)
        if isinstance(value, dict) and isinstance(lower, dict):
            merge(lower, value)
        else:
            below[key] = value
