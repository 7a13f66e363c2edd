"""The `group_vars/` and `host_vars/` directories beside an inventory file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.document import Section, parse_json, parse_yaml
from flagscale_deploy.inventory.tree import Located, Variables
from flagscale_deploy.support.folders import files_below
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import refuse_planted

Kind = Literal["group_vars", "host_vars"]

_SUFFIXES = ("", ".yml", ".yaml", ".json")
_VAULT_HEADER = "$ANSIBLE_VAULT;"


class VariableFiles:
    """The variables that lie beside an inventory; without a directory there are none.

    For a name NAME the first of `NAME`, `NAME.yml`, `NAME.yaml`, `NAME.json` counts. A directory NAME stands for every
    such file below it, sorted by name, the later ones winning (ansible.builtin.host_group_vars). What is wrong with a
    file is noted in `faults`: nobody has named it, so also that another user may have put it there. Files that are
    encrypted as a whole are not read; they are in `encrypted`.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.faults: list[Fault] = []
        self.encrypted: list[str] = []
        self._read = cache(self._read_file)

    def variables(self, kind: Kind, name: str) -> Variables:
        """Return the variables of a group or a host; none where no file is there."""
        if self.directory is None or "/" in name or not (self.directory / kind).is_dir():
            return {}
        merged: Variables = {}
        try:
            for file in _files_of(self.directory / kind, name):
                merged.update(self._read(file))
        except InputError as error:
            self.faults += error.faults
        return merged

    def _read_file(self, file: Path) -> Variables:
        try:
            refuse_planted(self.directory or Path(), file)
            text = read_text(file)
            if text.startswith(_VAULT_HEADER):
                self.encrypted.append(str(file))
                return {}
            value, faults = (parse_json if file.suffix == ".json" else parse_yaml)(text, str(file))
        except InputError as error:
            self.faults += error.faults
            return {}
        self.faults += faults
        if value is None:
            return {}
        if not isinstance(value, Section):
            self.faults.append(Fault(str(file), "found no mapping, expected variables with values"))
            return {}
        return {str(key): Located(item, _place(file, value.lines.get(key), key)) for key, item in value.items()}


def _place(file: Path, line: int | None, key: object) -> str:
    return f"{file}:{line}: {key}" if line else f"{file}: {key}"


def _files_of(directory: Path, name: str) -> Iterable[Path]:
    for suffix in _SUFFIXES:
        path = directory / f"{name}{suffix}"
        if os.path.isdir(path):
            return filter(_has_variables, files_below(path, _is_left_out))
        if os.path.exists(path):
            return [path]
    return []


def _has_variables(path: Path) -> bool:
    return path.suffix in _SUFFIXES


def _is_left_out(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith("~") or (path.suffix != "" and os.path.isdir(path))
