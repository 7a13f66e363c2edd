"""Which hosts each model may be placed on: `hosts`, and the custom resources that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.patterns import limit


def eligible_hosts(spec: ServeSpec, inventory: Inventory) -> dict[str, tuple[Host, ...]]:
    """The hosts of each model by its name, the head first. Raises InputError with every model that may have none."""
    faults: list[Fault] = []
    eligible = {}
    for model in spec.models:
        allowed, wrong = _named(model, inventory)
        faults += wrong or _unmet(model, allowed)
        fitting = [host for host in allowed.hosts if all(host.type == each for each in model.host_types)]
        eligible[model.name] = tuple(sorted(fitting, key=lambda host: host.name != inventory.head.name))
    if faults:
        raise InputError(faults)
    return eligible


def _named(model: ModelSpec, inventory: Inventory) -> tuple[Inventory, list[Fault]]:
    if model.hosts is None:
        return inventory, []
    where = model.places.get("hosts", model.where)
    remedy = f"a pattern as for --limit; the hosts are: {', '.join(inventory.names)}"
    try:
        return limit(inventory, model.hosts), []
    except InputError as error:
        return inventory, [replace(fault, where=where, remedy=fault.remedy or remedy) for fault in error.faults]


def _unmet(model: ModelSpec, allowed: Inventory) -> Iterator[Fault]:
    """A resource is a host's `type`, as a hostfile and Ray have it. Of several a host can have one only."""
    types = dict.fromkeys(host.type for host in allowed.hosts)
    wanted = [each for each in model.host_types if each not in types] or model.host_types[1:]
    for each in wanted:
        have = ", ".join(f"{host.name} is {host.type}" for host in allowed.hosts)
        yield Fault(
            model.places.get("resources", model.where),
            f"asks for hosts that are {each}{'' if each not in types else ' and ' + model.host_types[0]}; {have}",
            f"set type: {each} for the hosts that are, or take it out",
        )
