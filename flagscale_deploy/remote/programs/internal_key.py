"""Send a key that this deployment's run has made: its gate's for the servers behind it, or its Ray's token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import state
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.gate import InternalKeyArguments, InternalKeyReply

send: Callable[[InternalKeyReply], None] = wire.send

LARGEST = 8 << 10
FILES = {"gate": "internal-key", "ray": "ray_token"}


def main(args: InternalKeyArguments) -> None:
    """Send it. Raises OSError where there is none."""
    path = state.directory(args["deployment"], args["host"]) / "secrets" / FILES[args["of"]]
    send({"key": files.read_whole(str(path), LARGEST).decode("ascii", "replace").strip()})
