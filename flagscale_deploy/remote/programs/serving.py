"""Verify that a program of the user's own serves at an address of this host: its driver's host cannot see that."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError
from flagscale_deploy.remote.engine import address, openai, program
from flagscale_deploy.remote.system import network

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.status import ServingArguments, ServingReply

send: Callable[[ServingReply], None] = wire.send


def main(args: ServingArguments) -> None:
    """Send whether a process of the deployment answers at the address."""
    if not is_own(args):
        send({"serves": False, "why": "it is no address of this host with a port of the deployment"})
        return
    client = openai.client(args["deployment"], args["host"], program=True)
    try:
        at, why = program.answers(client, [args["address"]])
        send({"serves": at is not None, "why": why})
    except ForeignListenerError as error:
        send({"serves": False, "foreign": True, "why": str(error)})


def is_own(args: ServingArguments) -> bool:
    """Return whether it is an address of this host's network, with a port that its record has of the deployment.

    Another host named it: nothing is connected to before.
    """
    place = address.parse(args["address"])
    if place is None or place.port not in record.ports(record.read(args["deployment"], args["host"]) or {}):
        return False
    named = ip_address(place.address)
    held = (ip_address(text) for interface in network.interfaces() for text in interface["addresses"])
    return not named.is_loopback and named in held
