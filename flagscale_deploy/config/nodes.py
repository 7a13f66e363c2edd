"""`hostfile.nodes`: hosts that the configuration names itself, as FlagScale's first serve files did."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import Settings, setting
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.config.schema.values import Port, Slots, Text
from flagscale_deploy.config.spec import InlineNode
from flagscale_deploy.support.suggest import suggest

_FORM = "expected nodes: [{master: {ip, slots, type}}, {node: {ip, slots, type}}]"


class Node(Settings):
    """A node; of the master `port` is Ray's, of the others SSH's."""

    ip: Text | None = setting("the address that SSH reaches the host by")
    slots: Slots | None = setting("GPUs; of `type: cpu` CPUs for Ray. Default: what the probe finds")
    type: Text | None = setting("`gpu`, `cpu`, or the name of a Ray resource. Default: gpu")
    port: Port | None = setting("of the master Ray's port, of another node SSH's")
    docker: Text | None = setting("container. Default: none")


def read_nodes(hostfile: Any, path: Path, findings: Findings) -> tuple[tuple[InlineNode, ...], int | None]:
    """The nodes, the master first, and Ray's port where the master has one; faults go to `findings`."""
    nodes = hostfile.get("nodes") if isinstance(hostfile, dict) else None
    if hostfile is None:
        return (), None
    if not isinstance(nodes, list) or not nodes:
        findings.add(path, "names no nodes", _FORM)
        return (), None
    for key in hostfile.keys() - {"nodes"}:
        findings.add((*path, key), "unknown key", suggest(key, ("nodes",)))
    where = (*path, "nodes")
    read = [each for at, node in enumerate(nodes) if (each := _read_node(node, (*where, str(at)), findings))]
    masters = [each for role, each in read if role == "master"]
    if len(read) == len(nodes) and len(masters) != 1:
        findings.add(where, f"holds {len(masters) or 'no'} master", "one node is - master: {ip: …}: the head")
    ordered = [("master", each) for each in masters] + [each for each in read if each[0] != "master"]
    _refuse_twins([each for _, each in ordered], where, findings)
    return tuple(_inline(role, each) for role, each in ordered), masters[0].port if masters else None


def _read_node(item: Any, path: Path, findings: Findings) -> tuple[str, Node] | None:
    role = next(iter(item)) if isinstance(item, dict) and len(item) == 1 else None
    if role not in ("master", "node"):
        findings.add(path, "is neither a master nor a node", _FORM)
        return None
    node = read_settings(Node, item[role], (*path, role), findings)
    if not (node.ip or "").strip():
        findings.add((*path, role), "has no ip", "add ip: the address that SSH reaches it by")
    return role, node


def _inline(role: str, node: Node) -> InlineNode:
    ssh_port = node.port if role == "node" else None
    return InlineNode((node.ip or "").strip(), node.slots, node.type or "gpu", ssh_port, node.docker)


def _refuse_twins(nodes: list[Node], path: Path, findings: Findings) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.ip in seen:
            findings.add(path, f"holds {node.ip} twice", "name each host once")
        seen.add(node.ip or "")
