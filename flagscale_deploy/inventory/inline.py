"""Hosts that a configuration names itself, without a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.assembly import assemble
from flagscale_deploy.inventory.hostfile import with_slots
from flagscale_deploy.inventory.keys import make_host
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.ranges import expand
from flagscale_deploy.inventory.tree import UNGROUPED, Located, Tree, plain_values
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.units import counted


def inline_inventory(hosts: Iterable[Mapping[str, object]], source: str) -> Inventory:
    """Return the inventory of some hosts in their order.

    Each has its `name` and the keys of an inventory's host, with `gpus` counted in slots. `source` is the place that
    they stand at, for messages. Raises InputError with every key that does not fit.
    """
    tree, made, faults = Tree(), list[Host | None](), list[Fault]()
    for settings in hosts:
        name = str(settings["name"])
        where = f"{source}: {name}"
        keys = {key: Located(value, f"{where}: {key}") for key, value in settings.items() if key != "name"}
        faults += [
            Fault(where, problem, "give each host an entry of its own: its name or address")
            for problem in _name_problems(name)
        ]
        host, wrong = make_host(name, keys, plain_values(keys))
        tree.add_host(name, UNGROUPED)
        made.append(host and with_slots(host))
        faults += wrong
    tree.settle()
    return assemble(tree, made, faults, source, {})


def _name_problems(name: str) -> list[str]:
    try:
        names = expand(name)
    except ValueError as error:
        return [str(error)]
    if names == [name]:
        return []
    return [f"found {quoted(name)}, which stands for {counted(len(names), 'host')}, expected its name alone"]
