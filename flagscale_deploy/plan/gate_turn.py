"""A gate that comes before servers that run, or goes: what that means for them and for clients. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from flagscale_deploy.plan.entrances import FRONTS, GATE
from flagscale_deploy.plan.kept import KeptRun
from flagscale_deploy.plan.rank import API_PORT
from flagscale_deploy.remote.wire import cut

LONGEST_DOORS = 300
"""Characters of what is shown of hosts and ports."""
Turn = Literal["comes", "goes"]
REASONS: Mapping[Turn, str] = {"comes": "a gate comes before it", "goes": "the gate before it goes"}
"""Why each server has to start again: it gets another key, or loses it, and listens elsewhere."""


def gate_turn(before: KeptRun, after: KeptRun) -> Turn | None:
    """Return whether a gate comes or goes; None where neither is so."""
    gates = [any(server["name"] == GATE for server in run["servers"]) for run in (before, after)]
    return None if gates[0] == gates[1] else "comes" if gates[1] else "goes"


def moved_clients(before: KeptRun, after: KeptRun) -> tuple[str, ...]:
    """Return in words where clients go, by host and port."""
    old, new = (cut(", ".join(_doors(run)), LONGEST_DOORS) for run in (before, after))
    return (f"clients go on with {new}" if old == new else f"clients have to go to {new} instead of {old}",)


def _doors(run: KeptRun) -> Iterator[str]:
    """Yield host and port of each server that clients connect to: the gate, else routers, and engines without one."""
    gates = [server for server in run["servers"] if server["name"] == GATE]
    routed = {server["model"] for server in run["servers"] if server["engine"] in FRONTS}
    for server in gates or run["servers"]:
        for rank in server["ranks"] if server["engine"] in FRONTS or server["model"] not in routed else ():
            if API_PORT in rank["ports"]:
                yield f"{rank['host']}:{rank['ports'][API_PORT]}"
