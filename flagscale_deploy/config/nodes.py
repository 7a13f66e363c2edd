"""`hostfile.nodes`: hosts that the configuration names itself, as FlagScale's first serve files did."""

from __future__ import annotations

from flagscale_deploy.config.schema.base import Settings, setting
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.schema.values import Port, Slots, Text
from flagscale_deploy.config.spec import InlineNode
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Value

_FORM = "expected nodes: [{master: {ip, slots, type}}, {node: {ip, slots, type}}]"


class Node(Settings):
    """A node; of the master `port` is Ray's, of the others SSH's."""

    ip: Text | None = setting("the address that SSH reaches the host by")
    slots: Slots | None = setting("GPUs; of `type: cpu` CPUs for Ray. Default: what the probe finds")
    type: Text | None = setting("`gpu`, `cpu`, or the name of a Ray resource. Default: gpu")
    port: Port | None = setting("of the master Ray's port, of another node SSH's")
    docker: Text | None = setting("container. Default: none")


def read_nodes(hostfile: Value, path: Path) -> Checked[tuple[tuple[InlineNode, ...], int | None]]:
    """Return the nodes, the master first, and Ray's port where the master has one."""
    faults = KeyFaults()
    if hostfile is None:
        return ((), None), faults
    items = hostfile.get("nodes") if isinstance(hostfile, dict) else None
    if not isinstance(hostfile, dict) or not isinstance(items, list) or not items:
        faults.add(path, "has no nodes", _FORM)
        return ((), None), faults
    for key in hostfile.keys() - {"nodes"}:
        faults.add((*path, key), "unknown key", suggest(key, ("nodes",)))
    where = (*path, "nodes")
    read = [faults.take(_read_node(item, (*where, str(index)))) for index, item in enumerate(items)]
    nodes = [entry for entry in read if entry is not None]
    masters = [node for role, node in nodes if role == "master"]
    if len(nodes) == len(items) and len(masters) != 1:
        problem = f"holds {len(masters) or 'no'} master{'s' if len(masters) > 1 else ''}"
        faults.add(where, problem, "one node is - master: {ip: …}: the head")
    ordered = [("master", node) for node in masters] + [(role, node) for role, node in nodes if role != "master"]
    faults += _twins([node for _, node in ordered], where)
    return (tuple(_inline(role, node) for role, node in ordered), masters[0].port if masters else None), faults


def _read_node(item: Value, path: Path) -> Checked[tuple[str, Node] | None]:
    faults = KeyFaults()
    ((role, keys),) = item.items() if isinstance(item, dict) and len(item) == 1 else (("", None),)
    if role not in ("master", "node"):
        faults.add(path, "is neither a master nor a node", _FORM)
        return None, faults
    node = faults.take(read_settings(Node, keys, (*path, role)))
    if not (node.ip or "").strip():
        faults.add((*path, role), "has no ip", "add ip: the address that SSH reaches it by")
    return (role, node), faults


def _inline(role: str, node: Node) -> InlineNode:
    ssh_port = node.port if role == "node" else None
    return InlineNode((node.ip or "").strip(), node.slots, node.type or "gpu", ssh_port, node.docker)


def _twins(nodes: list[Node], path: Path) -> KeyFaults:
    faults = KeyFaults()
    seen: set[str] = set()
    for node in nodes:
        if node.ip in seen:
            faults.add(path, f"holds {node.ip} twice", "name each host once")
        seen.add(node.ip or "")
    return faults
