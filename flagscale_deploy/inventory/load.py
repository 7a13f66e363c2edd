"""Load an inventory file in any supported format."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.ansible import build
from flagscale_deploy.inventory.ansible_cfg import read_ansible_config
from flagscale_deploy.inventory.ansible_ini import parse_ansible_ini, process_count_problem
from flagscale_deploy.inventory.ansible_yaml import parse_ansible_yaml
from flagscale_deploy.inventory.assembly import checked
from flagscale_deploy.inventory.document import Section, parse_yaml
from flagscale_deploy.inventory.hostfile import looks_like_hostfile, parse_hostfile
from flagscale_deploy.inventory.model import Group, Host, Inventory
from flagscale_deploy.inventory.ranges import expand, split_login
from flagscale_deploy.inventory.short import looks_like_short, parse_short
from flagscale_deploy.inventory.surroundings import Surroundings
from flagscale_deploy.inventory.tree import ALL, UNGROUPED, Faults, Located, Tree
from flagscale_deploy.inventory.variable_files import VariableFiles
from flagscale_deploy.support.file_kinds import FileKind, kind_of_document, kind_of_text, refuse_other_kind
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.learn_secrets import quoting_no_secret
from flagscale_deploy.support.planted import refuse_planted

_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_YAML_START = re.compile(r"---|%YAML|\{|-\s|['\"]?[^\s\[=][^\s=]*\s*:(\s|$)")
LOCALHOST = "localhost"
_HOST = re.compile(r"[\w.@:\[\]-]+(?<!\.yaml)(?<!\.yml)(?<!\.ini)(?<!\.txt)")
_AS_FILE = "write its result to a file: ansible-inventory -i SOURCE --list --yaml > hosts.yaml"


def load_inventory(path: str | Path | None, environ: Mapping[str, str] | None = None) -> Inventory:
    """Return what `read_inventory` returns. Raises InputError also with what is wrong with any host."""
    return checked(read_inventory(path, environ))


@quoting_no_secret
def read_inventory(path: str | Path | None, environ: Mapping[str, str] | None = None) -> Inventory:
    """Return the inventory of a file; for Ansible's forms with `group_vars/`, `host_vars/` and `ansible.cfg` beside it.

    None and `localhost` are this machine alone. `environ` is what `lookup('env', …)` sees. Faults of single hosts of
    Ansible's forms are in `Inventory.faults`. Raises InputError with every other fault, and where the path is no
    readable text file.
    """
    if path is not None and (str(path) == LOCALHOST or "," in str(path)):
        refuse_planted(Path(), Path(path), named=False)  # a file of that name would count
    if path is None or is_this_machine(path):
        return local_inventory()
    if names_hosts(path):
        return _listed(str(path), Surroundings(environ or {}, VariableFiles(None)))
    return _parsed(_read(path), str(path), Surroundings(environ or {}, VariableFiles(Path(path).parent)))


def is_this_machine(path: str | Path | None) -> bool:
    """Return whether `-i` with this path is this machine, without SSH."""
    return str(path) == LOCALHOST and not os.path.exists(LOCALHOST)


def names_hosts(path: str | Path) -> bool:
    """Return whether a path is hosts and no file: `localhost`, or names with a comma."""
    return (str(path) == LOCALHOST or "," in str(path)) and not os.path.exists(path)


def default_inventory(environ: Mapping[str, str]) -> str | None:
    """Return the inventory that `ansible.cfg` names. Raises InputError."""
    return read_ansible_config(None, environ).inventory


def _listed(names: str, around: Surroundings) -> Inventory:
    """Return the hosts of `-i gpu01,gpu02`, of which each may have a login, a port and a range."""
    tree, faults = Tree(names), Faults()
    for login in filter(None, map(str.strip, re.findall(r"(?:\[[^\[\]]*\]|[^,])+", names))):
        user, pattern, port = split_login(login)
        try:
            hosts = expand(pattern)
        except ValueError as error:
            faults.append(Fault("-i", str(error), "as in -i gpu01,gpu02"))
            continue
        if port is not None and (problem := process_count_problem(login, port)):
            faults.append(Fault("-i", problem, "write the hosts alone, or `HOST slots=N` lines in a file"))
        for host in hosts:
            own = tree.add_host(host, UNGROUPED, None if port is None else Located(port, f"-i: {login}"))
            own.update({} if user is None else {"ansible_user": Located(user, f"-i: {login}")})
    return build(tree, around, faults, names)


@quoting_no_secret
def load_hostfile(path: str | Path) -> Inventory:
    """Return the inventory of FlagScale's hostfile, whatever its content looks like. Raises InputError as above."""
    return parse_hostfile(_read(path), str(path))


def _read(path: str | Path) -> str:
    if os.path.isdir(path):
        raise InputError.at(str(path), "found a directory, expected one inventory file", _AS_FILE)
    if isinstance(path, str) and _HOST.fullmatch(path) and not os.path.exists(path):
        raise InputError.at(path, "there is no such file", f"correct the path; if it is a host, write -i {path},")
    return read_text(path)


@quoting_no_secret
def parse_inventory(text: str, source: str = "inventory", environ: Mapping[str, str] | None = None) -> Inventory:
    """Return the inventory of a text, whose form follows from its content; `source` is its name in messages.

    Raises InputError with every fault found.
    """
    return checked(_parsed(text, source, Surroundings(environ or {})))


def _parsed(text: str, source: str, around: Surroundings) -> Inventory:
    if text.startswith("#!"):
        raise InputError.at(source, "found a program, expected an inventory; programs are not run", _AS_FILE)
    if text.startswith("$ANSIBLE_VAULT;"):
        raise InputError.at(
            source, "found a file encrypted with ansible-vault", "decrypt it; nothing is decrypted here"
        )
    if looks_like_hostfile(text) and not _YAML_START.match(_first_line(text)):
        return parse_hostfile(text, source)
    if not _looks_like_yaml(text, source):
        refuse_other_kind(kind_of_text(text, source), FileKind.INVENTORY, source)
        return parse_ansible_ini(text, source, around)
    document, faults = parse_yaml(text, source)
    refuse_other_kind(kind_of_document(document), FileKind.INVENTORY, source)
    if not isinstance(document, Section):
        what = "nothing" if document is None else "a list" if isinstance(document, list) else "one value"
        raise InputError.at(
            source, f"found {what}, expected `hosts:` or groups", "the short form is `hosts: [gpu01, gpu02]`"
        )
    if "plugin" in document or "_meta" in document:
        raise InputError.at(source, "found the input or output of an inventory plugin, expected an inventory", _AS_FILE)
    if looks_like_short(document):
        return parse_short(document, source, faults)
    return parse_ansible_yaml(document, source, around, faults)


def local_inventory() -> Inventory:
    """Return this machine alone, reached without SSH; for a deployment that names no hosts."""
    host = Host(LOCALHOST, LOCALHOST, connection="local")
    groups = {ALL: Group(ALL, children=(UNGROUPED,)), UNGROUPED: Group(UNGROUPED, hosts=(LOCALHOST,))}
    return Inventory((host,), groups, LOCALHOST)


def _looks_like_yaml(text: str, source: str) -> bool:
    """Decide by the first line that is no comment; a name alone could be either, and the suffix decides."""
    first = _first_line(text)
    return bool(_YAML_START.match(first)) or (not first.startswith("[") and source.endswith(_YAML_SUFFIXES))


def _first_line(text: str) -> str:
    """Return the first line that is neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and line[0] not in "#;"), "")
