"""The last step of every form: groups and hosts become an `Inventory`, or all faults are raised together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.tree import Tree


def assemble(
    tree: Tree,
    hosts: Iterable[Host | None],
    faults: Iterable[Fault],
    source: str,
    group_vars: Mapping[str, Mapping[str, Any]],
) -> Inventory:
    """The inventory; `group_vars` are each group's own variables.

    Raises InputError with every fault once, from the first line to the last, and where no host is named.
    """
    found = sorted(dict.fromkeys(faults), key=_place)
    if not found and not tree.hosts:
        found = [
            Fault(source, "names no host", "list at least one host, or leave --inventory away to use this machine")
        ]
    if found:
        raise InputError(found)
    groups = {group.name: group for group in tree.freeze(group_vars)}
    return Inventory(tuple(host for host in hosts if host is not None), groups, source)


def _place(fault: Fault) -> list[str | int]:
    """Line 9 before line 10: digits and the text between them by turns."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", fault.where)]
