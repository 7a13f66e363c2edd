"""Decide a server's state from the reply of its driver's host."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.errors import HostError
from flagscale_deploy.remote.messages.record import RecordedRank, RecordedServer
from flagscale_deploy.remote.messages.status import InspectedRestarts, InspectReply

InstanceState = Literal[
    "ready", "finished", "starting", "restarting", "changing", "unwell", "dead", "gave up", "stopped", "UNKNOWN"
]


RankState = Literal[InstanceState, "running", "spare"]


def server_state(instance: RecordedServer, reply: InspectReply | None) -> tuple[InstanceState, str]:
    """Return the state of a recorded server, and the problem if there is one.

    An engine listens only once it is ready, so an error from /health means that it has died. A router listens before it
    has workers. A live server that was ready once (`ready_at`) and does not answer any more hangs.
    """
    if reply is None:
        return "UNKNOWN", "its driver host cannot be reached, or is not in the inventory"
    if (reply["record"] or {}).get("stopped_at"):
        return "stopped", ""
    inspected = reply["instances"].get(instance["name"])
    if inspected is None:
        return "UNKNOWN", "its host did not report it"
    if inspected.get("finished"):
        return "finished", ""
    restarts = inspected.get("restarts") or {}
    if not inspected["alive"]:
        return _not_running(restarts) or ("dead", inspected["why"])
    if restarts.get("state") == "restarting" and restarts.get("supervised"):  # it hangs, and is ended just now
        return "restarting", restarts.get("why", "")
    unguarded = bool(restarts) and not restarts.get("supervised")
    warning = "its supervisor is gone: it will not be restarted after a crash" if unguarded else ""
    if inspected["token"]:
        return "ready", warning
    if inspected.get("foreign"):
        return "unwell", inspected["why"]
    if restarts.get("in_a_row") and not restarts.get("healthy") and inspected["health"] is None:
        number, most, end = (restarts.get(name) for name in ("in_a_row", "max", "last_exit"))
        return "restarting", f"loading after restart {number} of {most} ({end})"
    has_been_ready = (
        inspected["health"] == 200
        or inspected.get("ready_at") is not None
        or (inspected["health"] is not None and instance.get("replica") is not None)
    )
    problem = "; ".join(filter(None, (inspected["why"], warning)))
    return ("unwell" if has_been_ready else "starting"), problem


def rank_state(
    instance: RecordedServer, rank: RecordedRank, result: InspectReply | HostError | None
) -> tuple[RankState, str]:
    """Return the state of a rank from the reply of its host, and the problem if there is one.

    A follower answers nobody: it runs while its process does.
    """
    if result is None:
        return "UNKNOWN", ""  # the command is about other hosts (`--limit`)
    if isinstance(result, HostError):
        return "UNKNOWN", f"its host cannot be reached: {result.problem}"
    inspected = result["instances"].get(rank["name"])
    if inspected is not None and inspected["alive"] and not rank["local_url"]:
        return "running", ""
    restarts = (inspected and inspected.get("restarts")) or {}
    if restarts.get("state") == "spare" and restarts.get("supervised"):
        return "spare", restarts.get("why", "")
    return server_state({**instance, "name": rank["name"]}, result)


def _not_running(restarts: InspectedRestarts) -> tuple[InstanceState, str] | None:
    """Return the state of a server that does not run but has a supervisor; None without one."""
    if restarts.get("state") == "gave up":
        return "gave up", str(restarts.get("why"))
    if restarts.get("supervised"):
        return "restarting", restarts.get("why") or "it has just ended"
    return None
