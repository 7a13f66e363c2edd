"""Have a host verify that a program of the user's own serves there, where that is not its driver's host."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.errors import HostError
from flagscale_deploy.remote.messages.record import RecordedServer
from flagscale_deploy.remote.messages.status import SERVING, InspectReply, ServingArguments, ServingReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet, answers, failures
from flagscale_deploy.transport.remote_program import call

SECONDS = 20.0
ALL_SECONDS = 60.0
"""How long all programs together may take to be verified: the head says how many there are."""


UNVERIFIED: ServingReply = {"serves": False, "why": f"not verified within {ALL_SECONDS:g} s"}


def is_elsewhere(addresses: Mapping[str, str], endpoint: str, at: str) -> bool:
    """Return whether an address that answered is not of the driver's host, whose endpoint is `endpoint`."""
    return at != "" and addresses.get(at) != endpoint


def verify(fleet: Fleet, deployment: str, host: str, address: str) -> ServingReply:
    """Ask a host whether the deployment serves at an address of its own. Raises HostError."""
    args: ServingArguments = {"deployment": deployment, "host": host, "address": address}
    return call(fleet.connection(host), SERVING, args, timeout=SECONDS, cancelled=fleet.cancelled)


def withdraw_unverified(
    fleet: Fleet,
    deployment: str,
    head: str,
    results: Mapping[str, InspectReply | HostError],
    deadline: Deadline | None = None,
) -> None:
    """Take back that a program is ready, in the reply of the head, unless the host where it serves verifies that.

    Programs are driven from the head. `results` are the replies of all hosts. `deadline` is for all programs together.
    """
    reply = answers(results).get(head)
    if reply is None:
        return
    deadline = deadline or Deadline(ALL_SECONDS)
    for server in (reply["record"] or {}).get("instances", ()):
        inspected = reply["instances"].get(server["name"])
        at = inspected.get("at") if inspected else None
        if inspected and at and is_elsewhere(server.get("addresses", {}), server["endpoint"], at):
            verified = UNVERIFIED if deadline.expired else _verify_anywhere(fleet, deployment, server, at)
            if not verified["serves"]:
                inspected["token"], inspected["at"], inspected["why"] = False, None, verified["why"]
                inspected["foreign"] = verified.get("foreign", False)


def _verify_anywhere(fleet: Fleet, deployment: str, server: RecordedServer, at: str) -> ServingReply:
    hosts = [name for name in server["hosts"] if name in fleet.hosts and name != server["driver"]]
    replies = fleet.map(lambda host: verify(fleet, deployment, host.name, at), hosts)
    lost = "; ".join(f"{name} cannot be asked: {error.problem}" for name, error in failures(replies).items())
    verified: ServingReply = {"serves": False, "why": f"no host verifies that it serves at {at}; {lost}".rstrip("; ")}
    for reply in answers(replies).values():
        if reply["serves"]:
            return reply
        verified = reply if reply["why"] else verified
    return verified


def port_remedy(host: str) -> str:
    """Return what to do about somebody else's process on a server's port."""
    return f"end that process (`ss -ltnp` on {host} shows it), or choose another port"
