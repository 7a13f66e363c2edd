"""An inventory as JSON: in the shape of `ansible-inventory --list --export`, and as `hosts --json` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import Any

from flagscale_deploy.inventory.document import Encrypted, Unsafe
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.tree import ALL
from flagscale_deploy.secrets import HIDDEN, Secret, is_secret_name

SCHEMA = 1


def inventory_json(inventory: Inventory) -> dict[str, Any]:
    """Groups with `hosts`, `children` and `vars`, and `_meta.hostvars` with each host's variables after precedence.

    What is empty is left out, `all` lists no hosts of its own, and variables are shown as written, templates
    unresolved, as `ansible-inventory` does it, but for secrets: of a variable like `HF_TOKEN` the name alone is shown.
    (It shows a group's `vars` with `--export` only, and then not what a host has from its groups.)
    """
    hostvars = {host.name: _plain(host.vars) for host in inventory.hosts if host.vars}
    return {"_meta": {"hostvars": hostvars}, **_groups(inventory)}


def hosts_json(inventory: Inventory) -> dict[str, Any]:
    """The contract of `hosts --json`, versioned by `schema`: `hosts` are the fields of `Host`, in inventory order."""
    hosts = [_host(host) for host in inventory.hosts]
    meta = inventory_json(inventory)["_meta"]
    head = inventory.head.name
    return {
        "schema": SCHEMA,
        "source": inventory.source,
        "head": head,
        "hosts": hosts,
        "groups": _groups(inventory),
        "_meta": meta,
    }


def _groups(inventory: Inventory) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, group in inventory.groups.items():
        hosts = [] if name == ALL else list(group.hosts)
        shown = {"hosts": hosts, "children": list(group.children), "vars": _plain(group.vars)}
        filled = {key: value for key, value in shown.items() if value}
        if filled:
            found[name] = filled
    return found


def _host(host: Host) -> dict[str, Any]:
    return {field.name: _plain(getattr(host, field.name)) for field in fields(host)}


def _hidden(name: str, value: Any) -> Any:
    """A variable's value, unless its name says that nobody may see it."""
    return HIDDEN if isinstance(value, (str, int, float)) and is_secret_name(name) else value


def _plain(value: Any) -> Any:
    """The value in JSON's types. What only Ansible can read is marked in its way."""
    if isinstance(value, Encrypted):
        return {"__ansible_vault": str(value)}
    if isinstance(value, Unsafe):
        return {"__ansible_unsafe": str(value)}
    if isinstance(value, Mapping):
        return {str(key): _hidden(str(key), _plain(each)) for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else value
