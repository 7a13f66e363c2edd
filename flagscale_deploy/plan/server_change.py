"""What would become of the servers of a deployment, and why, in types and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from flagscale_deploy.remote.wire import cut
from flagscale_deploy.text import one_line

Kind = Literal["unchanged", "reloaded", "restarted", "moved", "added", "removed"]
WORDS: Mapping[Kind, str] = {
    "unchanged": "would go on",
    "reloaded": "would go on, with other settings",
    "restarted": "would restart",
    "moved": "would move",
    "added": "would be added",
    "removed": "would be removed",
}

LONGEST_VALUE = 80
"""Characters of a name, or of a value, that are shown."""


@dataclass(frozen=True)
class ServerChange:
    """What would become of a server, or of a Ray node, and why: `--max-model-len 4096 → 8192`."""

    name: str
    kind: Kind
    reasons: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Those on which it is started, or was where it is removed."""

    @property
    def line(self) -> str:
        """Return it in words."""
        return one_line(f"{self.name} {WORDS[self.kind]}" + (f": {', '.join(self.reasons)}" if self.reasons else ""))


@dataclass(frozen=True)
class Difference:
    """Between a run and a plan: one change for each server of either, in the order of the plan; removed ones last.

    `ray` is why all of the Ray cluster would have to restart, `nodes` are its worker nodes that change by themselves.
    `unknown` is what the run does not say of itself.
    """

    run_id: str
    servers: tuple[ServerChange, ...]
    ray: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    nodes: tuple[ServerChange, ...] = ()

    @property
    def changed(self) -> tuple[ServerChange, ...]:
        """Return the Ray nodes and servers that would not just go on."""
        return (*self.nodes, *(server for server in self.servers if server.kind != "unchanged"))

    @property
    def lines(self) -> tuple[str, ...]:
        """Return each change in words; none where nothing would change."""
        ray = (one_line(f"Ray would change: {', '.join(self.ray)}"),) if self.ray else ()
        return (*ray, *(server.line for server in self.changed))

    @property
    def history(self) -> tuple[str, ...]:
        """Return each change in words, where it has come to pass."""
        ray = [("Ray", self.ray)] if self.ray else []
        changes = [*ray, *((server.name, server.reasons or (server.kind,)) for server in self.changed)]
        return tuple(one_line(f"{name}: {', '.join(reasons)}") for name, reasons in changes)

    def json(self) -> dict[str, object]:
        """Return it as `plan --json` prints it."""
        return asdict(self)


def arrow(name: str, before: object, after: object) -> str:
    """Return `name before → after`; `+ name after` and `- name` where there is only one of them."""
    name = shown(name)
    if before is None:
        return f"+ {name} {shown(after)}".rstrip()
    if after is None:
        return f"- {name}"
    return f"{name} {shown(before) or '(set)'} → {shown(after) or '(set)'}"


def shown(value: object) -> str:
    """Return a name or a value, cut where it is long."""
    return cut(str(value), LONGEST_VALUE)
