"""Verify that a program of the user's own serves at an address of this host: its driver's host cannot see that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment.port_guard import ForeignListenerError
from flagscale_deploy.remote.engine import openai, program

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.status import ServingArguments, ServingReply

send: Callable[[ServingReply], None] = wire.send


def main(args: ServingArguments) -> None:
    """Send whether a process of the deployment answers at the address."""
    client = openai.client(args["deployment"], args["host"], program=True)
    try:
        at, why = program.answers(client, [args["address"]])
        send({"serves": at is not None, "why": why})
    except ForeignListenerError as error:
        send({"serves": False, "foreign": True, "why": str(error)})
