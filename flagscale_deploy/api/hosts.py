"""Decide which hosts a command uses: those of the inventory, else those that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flagscale_deploy.config.spec import InlineNode, ServeSpec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.hostfile import with_slots
from flagscale_deploy.inventory.inline import inline_inventory
from flagscale_deploy.inventory.load import is_this_machine, load_hostfile, local_inventory, read_inventory
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.support.planted import refuse_planted


def hosts_of(path: str | None, spec: ServeSpec | None, environ: Mapping[str, str] | None = None) -> Inventory:
    """Return the hosts of an inventory file, of `experiment.runner.hostfile`, of `hostfile.nodes`, or this machine.

    The first of these that exists is used; a path may also be `localhost`, this machine. `nnodes` applies to hosts
    that the configuration names, `nproc_per_node` and `device_type` also to this machine; `ssh_port`, `docker` and
    `nodes_envs` apply to every host for which the inventory sets none. `environ` is the operator's environment, by
    default the process's. Raises InputError; faults of single hosts are left in `Inventory.faults`.
    """
    environ = os.environ if environ is None else environ
    if spec is None:
        return read_inventory(path, environ)
    if is_this_machine(path):
        inventory = _this_machine(spec)
    else:
        inventory = read_inventory(path, environ) if path is not None else _named_by(spec)
    _refuse_unknown_hosts(inventory, spec)
    if path is None:
        _refuse_too_few(inventory, spec)
        inventory = _limited(inventory, spec) if spec.hostfile is not None or spec.nodes else inventory
    return replace(inventory, hosts=tuple(_with_runner(host, spec) for host in inventory.hosts))


def _named_by(spec: ServeSpec) -> Inventory:
    if spec.hostfile is not None:
        return _hostfile(spec.hostfile, spec)
    if spec.nodes:
        return inline_inventory([_keys(node) for node in spec.nodes], spec.where("hostfile", "nodes"))
    return _this_machine(spec)


def _hostfile(path: str, spec: ServeSpec) -> Inventory:
    if not os.path.exists(path):  # False, where Path.exists would raise, for a name that no file can have
        where = spec.where("experiment", "runner", "hostfile")
        remedy = "correct the path (relative to the working directory), or name the hosts with -i/--inventory"
        raise InputError.at(where, f"there is no file {path}", remedy)
    refuse_planted(Path(), Path(path))
    return load_hostfile(path)


def _keys(node: InlineNode) -> dict[str, object]:
    keys = {"gpus": node.slots, "type": node.type, "port": node.ssh_port, "container": node.docker}
    return {"name": node.address, **{key: value for key, value in keys.items() if value is not None}}


def _refuse_too_few(inventory: Inventory, spec: ServeSpec) -> None:
    if spec.nnodes is not None and spec.nnodes > len(inventory.hosts):
        where = spec.where("experiment", "runner", "nnodes")
        problem = f"{spec.nnodes} hosts are wanted, but only {len(inventory.hosts)} given: {', '.join(inventory.names)}"
        raise InputError.at(where, problem, "add hosts to the hostfile, or lower nnodes")


def _limited(inventory: Inventory, spec: ServeSpec) -> Inventory:
    """Return the first `nnodes` hosts with at most `nproc_per_node` GPUs each, as FlagScale does (`get_nnodes`)."""
    most = spec.nproc_per_node
    hosts = inventory.hosts[: spec.nnodes]
    if most is not None:
        hosts = tuple(replace(host, gpus=most if host.gpus is None else min(host.gpus, most)) for host in hosts)
    return replace(inventory, hosts=hosts)


def _this_machine(spec: ServeSpec) -> Inventory:
    inventory = local_inventory()
    host = inventory.hosts[0]
    if spec.device_type not in (None, "gpu") and spec.nproc_per_node is None:
        where = spec.where("experiment", "runner", "device_type")
        raise InputError.at(where, "needs nproc_per_node beside it", "set it to the number of GPUs of this machine")
    host = replace(host, gpus=spec.nproc_per_node, type=spec.device_type or host.type)
    return replace(inventory, hosts=(with_slots(host),))


def _with_runner(host: Host, spec: ServeSpec) -> Host:
    env = {**spec.host_env.get(host.address, {}), **spec.host_env.get(host.name, {}), **host.env}
    port = host.port if host.connection == "local" else host.port or spec.ssh_port
    return replace(host, port=port, container=host.container or spec.docker, env=env)


def _refuse_unknown_hosts(inventory: Inventory, spec: ServeSpec) -> None:
    """Raise InputError for settings of hosts that the inventory lacks: a misspelled host would silently lose them."""
    names = {name for host in inventory.hosts for name in (host.name, host.address, host.node_ip)}
    keys = {"envs.nodes_envs": spec.host_env, "node_args": spec.host_engine_args}
    faults = [
        Fault(
            spec.where("experiment", *key.split("."), name),
            f"unknown host; it is not in {inventory.source}",
            f"use one of: {', '.join(inventory.names)}",
        )
        for key, hosts in keys.items()
        for name in hosts
        if name not in names
    ]
    if faults:
        raise InputError(faults)
