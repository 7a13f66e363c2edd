"""What state a server is in, by what its driver's host says of it."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.record import RecordedServer
from flagscale_deploy.remote.messages.status import InspectedRestarts, InspectReply

InstanceState = Literal[
    "ready", "finished", "starting", "restarting", "unwell", "dead", "gave up", "stopped", "UNKNOWN"
]


def server_state(instance: RecordedServer, answer: InspectReply | None) -> tuple[InstanceState, str]:
    """An engine listens once it is ready: if it answers /health with an error then, it has died. A router listens
    before it has workers. Whoever was ready once (`ready_at`), and lives, hangs where no answer comes."""
    if answer is None:
        return "UNKNOWN", "its driver host cannot be reached, or is not in the inventory"
    if (answer["record"] or {}).get("stopped_at"):
        return "stopped", ""
    said = answer["instances"].get(instance["name"])
    if said is None:
        return "UNKNOWN", "it was not asked"
    if said.get("finished"):
        return "finished", ""
    restarts = said.get("restarts") or {}
    if not said["alive"]:
        return _not_there(restarts) or ("dead", said["why"])
    if said["token"]:
        unguarded = bool(restarts) and not restarts.get("supervised")
        return "ready", "its supervisor is gone: it will not be started again" if unguarded else ""
    if restarts.get("in_a_row") and not restarts.get("healthy") and said["health"] is None:
        number, most, end = (restarts.get(name) for name in ("in_a_row", "max", "last_exit"))
        return "restarting", f"loading: restart {number} of {most}, it {end}"
    has_been_ready = (
        said["health"] == 200
        or said.get("ready_at") is not None
        or (said["health"] is not None and instance.get("replica") is not None)
    )
    return ("unwell" if has_been_ready else "starting"), said["why"]


def _not_there(restarts: InspectedRestarts) -> tuple[InstanceState, str] | None:
    """A server that is not running, where its supervisor has something to say of it."""
    if restarts.get("state") == "gave up":
        return "gave up", str(restarts.get("why"))
    if restarts.get("supervised"):
        return "restarting", restarts.get("why") or "it has just ended"
    return None
