"""An inventory as `hosts --json` prints it, groups and variables in the shape of `ansible-inventory --list`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import TypedDict

from flagscale_deploy.inventory.document import Encrypted, Unsafe
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.tree import ALL
from flagscale_deploy.secrets import HIDDEN, Secret, is_secret_name

SCHEMA = 1


class GroupJson(TypedDict, total=False):
    """A group; what is empty is left out."""

    hosts: list[str]
    children: list[str]
    vars: dict[str, object]


class MetaJson(TypedDict):
    """Each host's variables after precedence."""

    hostvars: dict[str, object]


class HostsJson(TypedDict):
    """What `hosts --json` prints; `hosts` are the fields of `Host`, in inventory order."""

    schema: int
    source: str
    head: str
    hosts: list[dict[str, object]]
    groups: dict[str, GroupJson]
    _meta: MetaJson


def hosts_json(inventory: Inventory) -> HostsJson:
    """Return what `hosts --json` prints, versioned by `schema`.

    In groups what is empty is left out, and `all` lists no hosts of its own. Variables are shown as written, templates
    unresolved, as `ansible-inventory` does it, but for secrets: of a variable like `HF_TOKEN` only the name is shown.
    """
    return {
        "schema": SCHEMA,
        "source": inventory.source,
        "head": inventory.head.name,
        "hosts": [_host(host) for host in inventory.hosts],
        "groups": _groups(inventory),
        "_meta": _meta(inventory),
    }


def _meta(inventory: Inventory) -> MetaJson:
    return {"hostvars": {host.name: _plain(host.vars) for host in inventory.hosts if host.vars}}


def _groups(inventory: Inventory) -> dict[str, GroupJson]:
    groups: dict[str, GroupJson] = {}
    for name, group in inventory.groups.items():
        shown: GroupJson = {}
        if group.hosts and name != ALL:
            shown["hosts"] = list(group.hosts)
        if group.children:
            shown["children"] = list(group.children)
        if group.vars:
            shown["vars"] = _variables(group.vars)
        if shown:
            groups[name] = shown
    return groups


def _host(host: Host) -> dict[str, object]:
    return {field.name: _plain(getattr(host, field.name)) for field in fields(host)}


def _variables(variables: Mapping[object, object] | Mapping[str, object]) -> dict[str, object]:
    return {str(name): _hidden(str(name), _plain(value)) for name, value in variables.items()}


def _hidden(name: str, value: object) -> object:
    """Return a variable's value, unless its name says that it is secret."""
    if not is_secret_name(name) or isinstance(value, bool) or value is None:
        return value
    if isinstance(value, dict):
        return value if "__ansible_vault" in value else {key: _hidden(name, item) for key, item in value.items()}
    return [_hidden(name, item) for item in value] if isinstance(value, list) else HIDDEN


def _plain(value: object) -> object:
    """Return the value in JSON's types. What only Ansible can read is marked in its way."""
    if isinstance(value, Encrypted):
        return {"__ansible_vault": str(value)}
    if isinstance(value, Unsafe):
        return {"__ansible_unsafe": str(value)}
    if isinstance(value, Mapping):
        return _variables(value)
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
