"""The last step of every form: make an `Inventory` of groups and hosts, or raise all faults together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.tree import Faults, Tree

FEW = 4


def assemble(
    tree: Tree,
    hosts: Iterable[Host | None],
    faults: Iterable[Fault],
    source: str,
    group_vars: Mapping[str, Mapping[str, object]],
) -> Inventory:
    """Return the inventory; `group_vars` are each group's own variables.

    Raises InputError with every fault once, from the first line to the last, and where no host is named.
    """
    wrong = in_order(faults)
    if not wrong and not tree.hosts:
        wrong = [Fault(source, "has no hosts", "list at least one host, or leave out --inventory to use this machine")]
    if wrong:
        raise InputError(wrong)
    groups = {group.name: group for group in tree.freeze(group_vars)}
    return Inventory(tuple(host for host in hosts if host is not None), groups, source)


def refuse_other_text(faults: Sequence[Fault], hosts: int, source: str) -> None:
    """Raise InputError, and quote nothing, where lines name hardly a host: a key, a log."""
    if len(faults) >= FEW and FEW * hosts <= len(faults):
        where = next((fault.where for fault in faults if fault.where.startswith(f"{source}:")), source)
        problem = "is no line of an inventory, as are most lines of this file"
        raise InputError.at(where, problem, "name another file; a line is HOST [NAME=VALUE …]")


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Return each fault once, from the first line to the last."""
    return sorted(dict.fromkeys(faults), key=_place)


def checked(inventory: Inventory) -> Inventory:
    """Return the inventory. Raises InputError with what is wrong with the hosts that it has."""
    faults = Faults()
    for name in inventory.names:
        faults += inventory.faults.get(name, ())
    if faults:
        raise InputError(in_order(faults))
    return inventory


def _place(fault: Fault) -> list[str | int]:
    """Return a sort key with line 9 before line 10: digits and the text between them by turns."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in re.split(r"([0-9]+)", fault.where)]
