"""Load an inventory file in any supported format."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.ansible_ini import parse_ansible_ini
from flagscale_deploy.inventory.ansible_yaml import parse_ansible_yaml
from flagscale_deploy.inventory.document import Section, parse_yaml
from flagscale_deploy.inventory.hostfile import looks_like_hostfile, parse_hostfile
from flagscale_deploy.inventory.model import Group, Host, Inventory
from flagscale_deploy.inventory.short import looks_like_short, parse_short
from flagscale_deploy.inventory.tree import ALL, UNGROUPED
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.learn_secrets import quoting_no_secret

_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_YAML_START = re.compile(r"---|%YAML|\{|-\s|['\"]?[^\s\[=][^\s=]*\s*:(\s|$)")
_AS_FILE = "write its result to a file: ansible-inventory -i SOURCE --list --yaml > hosts.yaml"


@quoting_no_secret
def load_inventory(path: str | Path | None) -> Inventory:
    """Return the inventory of a file, with `group_vars/` and `host_vars/` beside it where the form is Ansible's.

    None is this machine alone. Raises InputError with every fault found, and where the path is no readable text file.
    """
    if path is None:
        return local_inventory()
    return parse_inventory(_read(path), str(path), VariableFiles(Path(path).parent))


@quoting_no_secret
def load_hostfile(path: str | Path) -> Inventory:
    """Return the inventory of FlagScale's hostfile, whatever its content looks like. Raises InputError as above."""
    return parse_hostfile(_read(path), str(path))


def _read(path: str | Path) -> str:
    if os.path.isdir(path):
        raise InputError.at(str(path), "found a directory, expected one inventory file", _AS_FILE)
    return read_text(path)


@quoting_no_secret
def parse_inventory(text: str, source: str = "inventory", files: VariableFiles | None = None) -> Inventory:
    """Return the inventory of a text, whose form follows from its content; `source` is its name in messages.

    `files` are the variables beside it, none by default. Raises InputError with every fault found.
    """
    files = VariableFiles(None) if files is None else files
    if text.startswith("#!"):
        raise InputError.at(source, "found a program, expected an inventory; programs are not run", _AS_FILE)
    if text.startswith("$ANSIBLE_VAULT;"):
        raise InputError.at(
            source, "found a file encrypted with ansible-vault", "decrypt it; nothing is decrypted here"
        )
    if looks_like_hostfile(text) and not _YAML_START.match(_first_line(text)):
        return parse_hostfile(text, source)
    if not _looks_like_yaml(text, source):
        return parse_ansible_ini(text, source, files)
    document, faults = parse_yaml(text, source)
    if not isinstance(document, Section):
        what = "nothing" if document is None else "a list" if isinstance(document, list) else "one value"
        raise InputError.at(
            source, f"found {what}, expected `hosts:` or groups", "the short form is `hosts: [gpu01, gpu02]`"
        )
    if "plugin" in document or "_meta" in document:
        raise InputError.at(source, "found the input or output of an inventory plugin, expected an inventory", _AS_FILE)
    if looks_like_short(document):
        return parse_short(document, source, faults)
    return parse_ansible_yaml(document, source, files, faults)


def local_inventory() -> Inventory:
    """Return this machine alone, reached without SSH; for a deployment that names no hosts."""
    host = Host("localhost", "localhost", connection="local")
    groups = {ALL: Group(ALL, children=(UNGROUPED,)), UNGROUPED: Group(UNGROUPED, hosts=("localhost",))}
    return Inventory((host,), groups, "localhost", options=())


def _looks_like_yaml(text: str, source: str) -> bool:
    """Decide by the first line that is no comment; a name alone could be either, and the suffix decides."""
    first = _first_line(text)
    return bool(_YAML_START.match(first)) or (not first.startswith("[") and source.endswith(_YAML_SUFFIXES))


def _first_line(text: str) -> str:
    """Return the first line that is neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and line[0] not in "#;"), "")
