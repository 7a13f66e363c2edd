"""Tell what would change about a Ray cluster: nodes that change by themselves, and what needs all of Ray to restart.

A worker node joins, leaves and restarts while the others go on. Without its head there is no cluster. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from flagscale_deploy.config.source import parse_document
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from flagscale_deploy.plan.server_change import ServerChange, arrow, shown
from flagscale_deploy.support.value import Value

HEAD, WORKER = "ray_head.sh", "ray_worker.sh"
"""The scripts of nodes."""
_NODE = "Ray on "
_KEYS = (("deploy", "ray"), ("deploy", "restart"), ("deploy", "warm"), ("deploy", "timeouts", "ray"),
         ("experiment", "envs"), ("experiment", "cmds", "before_start"))  # fmt: skip
"""What of a configuration the scripts of Ray's nodes have."""
_OF_HOST = ("env", "cpus", "type", "node_ip", "interface", "python", "venv", "container", "before_start")
"""What of a host's settings they have."""
_MOST_KEYS = 8


@dataclass(frozen=True)
class RayChange:
    """`whole` is why all of Ray would have to restart; `nodes` are the worker nodes that change, by `node_name`."""

    whole: tuple[str, ...] = ()
    nodes: tuple[ServerChange, ...] = ()

    @property
    def vacated(self) -> tuple[str, ...]:
        """Return the hosts whose nodes leave or restart: what Ray runs there ends before that."""
        return tuple(host for node in self.nodes if node.kind != "added" for host in node.hosts)


def node_name(host: str) -> str:
    """Return the name of a host's Ray node, as changes have it; no server has such a name."""
    return _NODE + host


def node_host(name: str) -> str | None:
    """Return the host of a Ray node by its name; None for a server's name."""
    return name.removeprefix(_NODE) if name.startswith(_NODE) and "/" not in name else None


def may_use(server: KeptServer, hosts: Collection[str]) -> bool:
    """Return whether a server may have processes on the Ray nodes of these hosts.

    Ray itself chooses the nodes of a program, and of a server that needs several: those of the plan are a guess.
    """
    if not hosts or not _runs_on_ray(server):
        return False
    return server["engine"] == "program" or len(server["gpus"]) > 1 or any(host in server["gpus"] for host in hosts)


def _runs_on_ray(server: KeptServer) -> bool:
    return server["engine"] == "program" or any("RAY_ADDRESS" in rank["env"] for rank in server["ranks"])


def ray_change(running: KeptRun, planned: KeptRun) -> RayChange:
    """Return what would change about Ray if what runs became what is planned."""
    before, after = running["ray"], planned["ray"]
    if before["enabled"] != after["enabled"]:
        return RayChange(("it starts" if after["enabled"] else "it ends",))
    if not before["enabled"]:
        return RayChange()
    pair, heads = _Pair(running, planned), {running["head"], planned["head"]}
    workers = [host for host in dict.fromkeys((*before["nodes"], *after["nodes"])) if host not in heads]
    return RayChange(tuple(pair.of_head()), tuple(node for host in workers if (node := pair.worker(host)) is not None))


@dataclass(frozen=True)
class _Pair:
    """The two runs, whose Ray is compared node by node."""

    running: KeptRun
    planned: KeptRun

    def of_head(self) -> Iterator[str]:
        """Yield why all of Ray would have to restart."""
        before, after, head = self.running["ray"], self.planned["ray"], self.planned["head"]
        if before["address"] != after["address"]:
            yield arrow("head", before["address"], after["address"])
        for host in after["nodes"]:
            old, new = (run["versions"].get(host, {}).get("Ray") for run in (self.running, self.planned))
            if old and new and old != new:
                yield f"{arrow('Ray', old, new)} on {shown(host)}"
        if self.running["head"] == head:
            yield from (f"{reason} on the head {shown(head)}" for reason in self._of_node(head, HEAD))

    def worker(self, host: str) -> ServerChange | None:
        """Return what would become of a worker node; None where it goes on."""
        old, new = (host in run["ray"]["nodes"] for run in (self.running, self.planned))
        if old != new:
            return ServerChange(node_name(host), "added" if new else "removed", (), (host,))
        reasons = tuple(self._of_node(host, WORKER))
        return ServerChange(node_name(host), "restarted", reasons, (host,)) if reasons else None

    def _of_node(self, host: str, script: str) -> Iterator[str]:
        """Yield why a node has to start again."""
        old, new = (run["ray"]["nodes"].get(host, []) for run in (self.running, self.planned))
        if old != new:
            fewer = len(old) != len(new)
            yield arrow("GPUs", len(old), len(new)) if fewer else arrow("GPUs", old, new)
        before, after = (run["ray"]["scripts"].get(f"{host}/{script}") for run in (self.running, self.planned))
        if before == after:
            return
        keys = [*self._keys, *self._settings(host)]
        yield from (f"another {shown(key)}" for key in keys[:_MOST_KEYS])
        if not keys and old == new:
            yield "another script: a template, or this tool's version"

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        """Return the keys of the configuration that the scripts of nodes have, and that differ."""
        old, new = (_configuration(run) for run in (self.running, self.planned))
        keys = (_differing(_below(old, path), _below(new, path), ".".join(path)) for path in _KEYS)
        return tuple(chain.from_iterable(keys))

    def _settings(self, host: str) -> Iterator[str]:
        """Yield the settings of a host that its node's script has, and that differ."""
        runs = (self.running, self.planned)
        old, new = (next((own for own in run["hosts"] if own.get("name") == host), {}) for run in runs)
        yield from (f"{name} of {host}" for name in _OF_HOST if old.get(name) != new.get(name))


def _configuration(run: KeptRun) -> Value:
    with suppress(InputError):
        return parse_document(run["configuration"], run["source"]).value
    return None


def _below(tree: Value, path: tuple[str, ...]) -> Value:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _differing(before: Value, after: Value, key: str) -> Iterator[str]:
    """Yield the keys of what differs: those of the innermost mappings that both have."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys((*before, *after)):
            yield from _differing(before.get(name), after.get(name), f"{key}.{name}")
    elif before != after:
        yield key
