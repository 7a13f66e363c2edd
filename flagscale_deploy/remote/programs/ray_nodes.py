"""Count Ray's nodes and GPUs, asked on the head with the script that started the cluster's count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.engine.ray_nodes import look

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.program import Target
    from flagscale_deploy.remote.messages.run import RayNodesReply

send: Callable[[RayNodesReply], None] = wire.send


def main(args: Target) -> None:
    """Send what Ray counts."""
    send(look(args["deployment"], args["host"]))
