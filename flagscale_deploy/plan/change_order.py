"""Decide in which order a change is made: which groups at the same time, and where no request-safe way exists. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flagscale_deploy.plan.entrances import FRONTS, GATE
from flagscale_deploy.plan.gate_turn import gate_turn
from flagscale_deploy.plan.kept import KeptRun, KeptServer
from flagscale_deploy.plan.ray_change import may_use, node_host
from flagscale_deploy.plan.server_change import Difference

Kind = Literal["add", "change", "remove"]
_POOLS = ("prefill", "decode")
Takes = frozenset[tuple[str, str, int]]
"""GPUs and ports, by host."""


@dataclass(frozen=True)
class Batch:
    """Groups and Ray nodes, or what stands before groups, that are changed at the same time.

    Groups end before nodes and start after them; those that are not to run any more only end. `outage` are the models
    that nothing serves meanwhile.
    """

    kind: Kind
    groups: tuple[str, ...]
    outage: tuple[str, ...] = ()


def change_order(
    before: KeptRun, after: KeptRun, difference: Difference, *, at_once: int = 1, surge: Sequence[KeptServer] = ()
) -> tuple[Batch, ...]:
    """Return the batches that make what runs `before` what is to run `after`.

    At most `at_once` groups of a model are out at the same time; pools of a model are changed together. Groups of
    `surge` are added at first and removed at last. A group starts when nothing has its GPUs and ports any more.

    Ray nodes join before anything else, or with those that restart. Those that leave or restart do so with all groups
    that may have processes there, before other groups start: else Ray might choose them.

    Where a gate comes or goes, all servers are changed at the same time: they get another key, or lose it, and those
    that have it by then could not be asked together with those that have not.
    """
    if gate_turn(before, after) is not None:
        return (_everything(before, after, difference),)
    order = _Order(before, after, difference, surge)
    return (*order.batches(at_once), *_front_batches(before, after, difference), *order.last(surge))


def stays_in_front(before: KeptRun, after: KeptRun) -> set[str]:
    """Return the models whose clients go through a router, or the gate, before and after the change."""
    if gate_turn(before, after) is not None:
        return set()
    both = [_fronts(run) for run in (before, after)]
    if all(GATE in fronts for fronts in both):
        return {server["model"] for server in before["servers"]}
    return {model for model, server in both[0].items() if model in both[1] and server["engine"] == "router"}


def is_pooled(server: KeptServer) -> bool:
    """Return whether a group is a part of a prefill or decode pool."""
    return any(rank["role"] in _POOLS for rank in server["ranks"])


def takes(server: KeptServer) -> Takes:
    """Return the GPUs and ports of a group."""
    gpus = {(host, "gpu", index) for host, indexes in server["gpus"].items() for index in indexes}
    return frozenset(
        gpus | {(rank["host"], "port", port) for rank in server["ranks"] for port in rank["ports"].values()}
    )


def places(run: KeptRun) -> dict[str, Takes]:
    """Return the GPUs and ports of each server by its name."""
    return {server["name"]: takes(server) for server in run["servers"]}


class _Order:
    """The groups that serve by now, and those that are still to be changed."""

    def __init__(self, before: KeptRun, after: KeptRun, difference: Difference, surge: Sequence[KeptServer]) -> None:
        self._serving = _groups(before)
        self._after = {**_groups(after), **{server["name"]: server for server in surge}}
        self._safe = stays_in_front(before, after)
        kinds = {change.name: change.kind for change in difference.changed}
        self._added = [name for name in self._after if name not in self._serving]
        self._changed = [name for name in self._serving if name in self._after and name in kinds]
        self._removed = [name for name in self._serving if name not in self._after]
        restarts = any(node.kind == "restarted" for node in difference.nodes)  # Ray is whole when these are back, too
        self._joining = [node.name for node in difference.nodes if node.kind == "added" and not restarts]
        self._nodes = [node.name for node in difference.nodes if node.name not in self._joining]
        self._leaving = {node.name for node in difference.nodes if node.kind == "removed"}
        self._after |= {name: _gained(name, before, after) for name in self._nodes if name not in self._leaving}

    def batches(self, at_once: int) -> Iterable[Batch]:
        """Yield what is added and changed; what is removed, only where its place or Ray node is needed."""
        if self._joining:
            yield Batch("add", tuple(self._joining))
        while self._added or self._changed or self._nodes:
            if self._nodes and self._is_free(vacating := self._vacating()):
                yield self._batch("change", vacating)
            elif self._nodes and not self._removed:
                yield self._batch("change", [*self._changed, *self._nodes])
            elif not self._nodes and (added := [name for name in self._added if self._is_free([name])]):
                yield self._batch("add", added)
            elif not self._nodes and (changed := self._next(at_once)):
                yield self._batch("change", changed)
            elif self._removed:
                yield self._batch("remove", self._removed)
            else:  # groups that wait for each other's places
                yield self._batch("change", self._changed or self._added)

    def last(self, surge: Sequence[KeptServer]) -> Iterable[Batch]:
        """Yield what is removed in the end."""
        gone = [*self._removed, *(server["name"] for server in surge)]
        if gone:
            yield Batch("remove", tuple(gone))

    def _next(self, at_once: int) -> list[str]:
        """Return the groups of one model that can be changed next; none where others have their places."""
        for model in dict.fromkeys(self._serving[name]["model"] for name in self._changed):
            own = [name for name in self._changed if self._serving[name]["model"] == model]
            if any(is_pooled(self._serving[name]) for name in own):
                own = [
                    name for name, server in self._serving.items() if server["model"] == model and name in self._after
                ]
                if self._is_free(own):
                    return own
                continue
            free = [name for name in own if self._is_free([name])]
            if free:
                return free[:at_once]
        return []

    def _vacating(self) -> list[str]:
        """Return the Ray nodes that leave or restart, after the groups that may have processes there."""
        hosts = [host for name in self._nodes if (host := node_host(name)) is not None]
        ending = (*self._changed, *self._removed)
        own = [name for name in ending if may_use(self._serving[name], hosts)]
        pools = {self._serving[name]["model"] for name in own if is_pooled(self._serving[name])}
        own += [name for name in self._changed if name not in own and self._serving[name]["model"] in pools]
        return [*own, *self._nodes]

    def _is_free(self, names: Collection[str]) -> bool:
        held = frozenset[tuple[str, str, int]]().union(
            *(takes(server) for name, server in self._serving.items() if name not in names)
        )
        return not any(takes(self._after[name]) & held for name in names if name in self._after)

    def _batch(self, kind: Kind, names: Sequence[str]) -> Batch:
        if all(name in self._removed or name in self._leaving for name in names):
            kind = "remove"
        batch = Batch(kind, tuple(names), self._outage(names) if kind == "change" else ())
        for name in batch.groups:
            self._serving.pop(name, None)
            if kind != "remove" and name in self._after and node_host(name) is None:
                self._serving[name] = self._after[name]
        for waiting in (self._added, self._changed, self._removed, self._nodes):
            waiting[:] = [name for name in waiting if name not in batch.groups]
        return batch

    def _outage(self, names: Collection[str]) -> tuple[str, ...]:
        models = dict.fromkeys(
            self._after[name]["model"] for name in names if name in self._after and node_host(name) is None
        )
        left = {
            server["model"] for name, server in self._serving.items() if name not in names and not is_pooled(server)
        }
        return tuple(model for model in models if model not in self._safe or model not in left)


def _everything(before: KeptRun, after: KeptRun, difference: Difference) -> Batch:
    """Return all servers of both and the Ray nodes that change as one batch, what stands before others first."""
    servers = {server["name"]: server for run in (before, after) for server in run["servers"]}
    names = sorted(servers, key=lambda name: servers[name]["engine"] not in FRONTS)
    models = dict.fromkeys(server["model"] for server in before["servers"] if server["model"])
    return Batch("change", (*names, *(node.name for node in difference.nodes)), tuple(models))


def _front_batches(before: KeptRun, after: KeptRun, difference: Difference) -> Iterable[Batch]:
    """Yield routers and the gate that come, restart or go, each by itself; what is behind them serves by then."""
    old, new = ({server["name"]: server for server in run["servers"] if server["engine"] in FRONTS}
                for run in (before, after))  # fmt: skip
    models = {server["model"]: None for server in before["servers"] if server["model"]}
    for change in difference.changed:
        if change.kind == "reloaded":
            continue
        if change.name in new and change.name not in old:
            yield Batch("add", (change.name,))
        elif change.name in new:
            yield Batch(
                "change", (change.name,), (new[change.name]["model"],) if new[change.name]["model"] else (*models,)
            )
        elif change.name in old:
            yield Batch("remove", (change.name,))


def _gained(name: str, before: KeptRun, after: KeptRun) -> KeptServer:
    """Return a Ray node that restarts as what takes the GPUs that it has not had before."""
    host = node_host(name) or ""
    old, new = (run["ray"]["nodes"].get(host, []) for run in (before, after))
    gpus = [index for index in new if index not in old]
    return {"name": name, "model": "", "engine": "", "gpus": {host: gpus}, "ranks": []}


def _groups(run: KeptRun) -> dict[str, KeptServer]:
    return {server["name"]: server for server in run["servers"] if server["engine"] not in FRONTS}


def _fronts(run: KeptRun) -> Mapping[str, KeptServer]:
    """Return routers by their model, and the gate by its name."""
    return {server["model"] or server["name"]: server for server in run["servers"] if server["engine"] in FRONTS}
