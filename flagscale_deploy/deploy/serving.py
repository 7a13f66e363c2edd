"""Have a host verify that a program of the user's own serves there, where that is not its driver's host."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.errors import HostError
from flagscale_deploy.plan.network import address_problem, is_loopback
from flagscale_deploy.remote.deployment.record import ports as recorded_ports
from flagscale_deploy.remote.engine.address import parse
from flagscale_deploy.remote.messages.record import RecordedServer
from flagscale_deploy.remote.messages.status import SERVING, InspectReply, ServingArguments, ServingReply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.fleet import Fleet, answers
from flagscale_deploy.transport.remote_program import call
from flagscale_deploy.transport.replies import brief

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
    record = reply["record"] or {}
    for server in record.get("instances", ()):
        inspected = reply["instances"].get(server["name"])
        at = inspected.get("at") if inspected else None
        if inspected and at and is_elsewhere(server.get("addresses", {}), server["endpoint"], at):
            host = host_at(server, at)
            problem = _untrusted(fleet, results, record.get("run_id"), host, at)
            verified: ServingReply = {"serves": False, "why": problem}
            if not problem:
                verified = UNVERIFIED if deadline.expired else _verify_on(fleet, deployment, host, at)
            if not verified["serves"]:
                inspected["token"], inspected["at"], inspected["why"] = False, None, verified["why"]
                inspected["foreign"] = verified.get("foreign", False)


def host_at(server: RecordedServer, at: str) -> str:
    """Return the host whose address `at` is by the head's record, "" for one that is no host's.

    Addresses are recorded in the order of the hosts, beside one of loopback.
    """
    places = {address: parse(address) for address in server.get("addresses", {})}
    own = [address for address, place in places.items() if place is not None and not is_loopback(place.address)]
    return dict(zip(own, server["hosts"], strict=True)).get(at, "") if len(own) == len(server["hosts"]) else ""


def _untrusted(
    fleet: Fleet, results: Mapping[str, InspectReply | HostError], run_id: str | None, host: str, at: str
) -> str:
    """Return why a host is not asked to connect to an address, "" where it is: both may be another host's lie.

    The host itself has to have a part in the run, and the port of it there.
    """
    place, result = parse(at), results.get(host)
    if place is None or host not in fleet.hosts or result is None:
        return f"it is said to serve at {brief(at)}, which is none of its addresses"
    if isinstance(result, HostError):
        return f"{_unverified(at)}; {host} cannot be asked: {result.problem}"
    own = result["record"] or {}
    if run_id is None or own.get("run_id") != run_id or place.port not in recorded_ports(own):
        return f"{_unverified(at)}: the record of {host} has no port {place.port} of this run"
    return address_problem(fleet.hosts[host], place.address)


def _verify_on(fleet: Fleet, deployment: str, host: str, at: str) -> ServingReply:
    result = fleet.map(lambda asked: verify(fleet, deployment, asked.name, at), [host])[host]
    if isinstance(result, HostError):
        return {"serves": False, "why": f"{_unverified(at)}; {host} cannot be asked: {result.problem}"}
    return result if result["serves"] or result["why"] else {**result, "why": _unverified(at)}


def _unverified(at: str) -> str:
    return f"no host verifies that it serves at {at}"


def port_remedy(host: str) -> str:
    """Return what to do about somebody else's process on a server's port."""
    return f"end that process (`ss -ltnp` on {host} shows it), or choose another port"
