"""Send the key by which the gate on this host asks the servers behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.gate import InternalKeyReply
    from flagscale_deploy.remote.messages.program import Target

send: Callable[[InternalKeyReply], None] = wire.send

LARGEST = 8 << 10


def main(args: Target) -> None:
    """Send it. Raises OSError where there is none."""
    path = state.directory(args["deployment"], args["host"]) / "secrets" / "internal-key"
    send({"key": files.read_whole(str(path), LARGEST).decode("ascii", "replace").strip()})
