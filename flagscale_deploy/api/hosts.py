"""Which hosts a command is about: the inventory's, else those that the configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flagscale_deploy.config.spec import InlineNode, ServeSpec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.hostfile import with_slots
from flagscale_deploy.inventory.inline import inline_inventory
from flagscale_deploy.inventory.load import load_hostfile, load_inventory
from flagscale_deploy.inventory.model import Host, Inventory


def hosts_of(path: str | None, spec: ServeSpec | None) -> Inventory:
    """The hosts of an inventory file, of `experiment.runner.hostfile`, of `hostfile.nodes`, or this machine: the first
    of these that is there.

    `nnodes`, `nproc_per_node` and `device_type` say something of hosts that the configuration names, `ssh_port`,
    `docker` and `nodes_envs` of every host where the inventory is silent. Raises InputError.
    """
    if spec is None:
        return load_inventory(path)
    found = load_inventory(path) if path is not None else _named_by(spec)
    _refuse_strangers(found, spec)
    if path is None:
        _refuse_too_few(found, spec)
        found = _limited(found, spec) if spec.hostfile is not None or spec.nodes else found
    return replace(found, hosts=tuple(_with_runner(host, spec) for host in found.hosts))


def _named_by(spec: ServeSpec) -> Inventory:
    if spec.hostfile is not None:
        return _hostfile(spec.hostfile, spec)
    if spec.nodes:
        return inline_inventory([_keys(each) for each in spec.nodes], f"{spec.source}: hostfile.nodes")
    return _this_machine(spec)


def _hostfile(path: str, spec: ServeSpec) -> Inventory:
    if not Path(path).exists():
        where = f"{spec.source}: experiment.runner.hostfile"
        remedy = "correct it (a relative path starts at the working directory), or name the hosts with -i/--inventory"
        raise InputError.at(where, f"there is no file {path}", remedy)
    return load_hostfile(path)


def _keys(node: InlineNode) -> dict[str, object]:
    given = {"gpus": node.slots, "type": node.type, "port": node.ssh_port, "container": node.docker}
    return {"name": node.address, **{key: value for key, value in given.items() if value is not None}}


def _refuse_too_few(found: Inventory, spec: ServeSpec) -> None:
    if spec.nnodes is not None and spec.nnodes > len(found.hosts):
        where = f"{spec.source}: experiment.runner.nnodes"
        problem = f"{spec.nnodes} hosts are wanted, and there {'is' if len(found.hosts) == 1 else 'are'} "
        problem += f"{len(found.hosts)}: {', '.join(found.names)}"
        raise InputError.at(where, problem, "name the others in the hostfile, or lower nnodes")


def _limited(found: Inventory, spec: ServeSpec) -> Inventory:
    """The first `nnodes` hosts, with no more GPUs than `nproc_per_node`, as FlagScale counts them (`get_nnodes`)."""
    most = spec.nproc_per_node
    hosts = found.hosts[: spec.nnodes]
    if most is not None:
        hosts = tuple(replace(host, gpus=most if host.gpus is None else min(host.gpus, most)) for host in hosts)
    return replace(found, hosts=hosts)


def _this_machine(spec: ServeSpec) -> Inventory:
    found = load_inventory(None)
    host = found.hosts[0]
    if spec.device_type is not None and spec.nproc_per_node is None:
        where = f"{spec.source}: experiment.runner.device_type"
        raise InputError.at(where, "needs nproc_per_node beside it", "say how many of them this machine has")
    made = replace(host, gpus=spec.nproc_per_node, type=spec.device_type or host.type)
    return replace(found, hosts=(with_slots(made),))


def _with_runner(host: Host, spec: ServeSpec) -> Host:
    env = {**spec.host_env.get(host.address, {}), **spec.host_env.get(host.name, {}), **host.env}
    port = host.port if host.connection == "local" else host.port or spec.ssh_port
    return replace(host, port=port, container=host.container or spec.docker, env=env)


def _refuse_strangers(found: Inventory, spec: ServeSpec) -> None:
    """A host that is misspelled would go without its variables, and nobody would see."""
    known = {name for host in found.hosts for name in (host.name, host.address, host.node_ip)}
    keys = {"envs.nodes_envs": spec.host_env, "node_args": spec.host_engine_args}
    faults = [
        Fault(
            f"{spec.source}: experiment.{key}.{name}",
            f"is no host of {found.source}",
            f"it has: {', '.join(found.names)}",
        )
        for key, hosts in keys.items()
        for name in hosts
        if name not in known
    ]
    if faults:
        raise InputError(faults)
