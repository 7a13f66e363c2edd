"""Find the hosts that each model may be placed on, by `hosts` and custom resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.patterns import limit


def eligible_hosts(spec: ServeSpec, inventory: Inventory) -> dict[str, tuple[Host, ...]]:
    """Return the hosts of each model or pool by its label, the head first.

    Raises InputError with all of them that have none.
    """
    faults: list[Fault] = []
    eligible = {}
    for model in spec.engines:
        allowed, wrong = _named(model, inventory)
        faults += wrong or _unmet(model, allowed)
        fitting = [host for host in allowed.hosts if all(host.type == host_type for host_type in model.host_types)]
        eligible[model.label] = tuple(sorted(fitting, key=lambda host: host.name != inventory.head.name))
    if faults:
        raise InputError(faults)
    return eligible


def _named(model: ModelSpec, inventory: Inventory) -> tuple[Inventory, list[Fault]]:
    if model.hosts is None:
        return inventory, []
    where = model.places.get("hosts", model.where)
    remedy = f"use a pattern as for --limit; the hosts are: {', '.join(inventory.names)}"
    try:
        return limit(inventory, model.hosts), []
    except InputError as error:
        return inventory, [replace(fault, where=where, remedy=fault.remedy or remedy) for fault in error.faults]


def _unmet(model: ModelSpec, allowed: Inventory) -> Iterator[Fault]:
    """Yield resources that no host has: a resource is a host's `type`, and a host has only one."""
    types = dict.fromkeys(host.type for host in allowed.hosts)
    missing = [resource for resource in model.host_types if resource not in types] or model.host_types[1:]
    for resource in missing:
        have = ", ".join(f"{host.name} is {host.type}" for host in allowed.hosts)
        kinds = resource if resource not in types else f"{resource} and {model.host_types[0]}"
        yield Fault(
            model.places.get("resources", model.where),
            f"needs hosts of type {kinds}, but {have}",
            f"set type: {resource} for such hosts, or remove the resource",
        )
