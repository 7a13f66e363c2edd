"""Permit restarts of scripts of this host that no `watch` waits for: its Ray node, once the deployment is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import restart_permits

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import PermitArguments, PermitReply

send: Callable[[PermitReply], None] = wire.send


def main(args: PermitArguments) -> None:
    """Permit them, unless the run was stopped."""
    for script in args["scripts"]:
        restart_permits.of(args["deployment"], args["host"], args["run_id"], script).permit()
    send({"permitted": not restart_permits.is_forbidden(args["deployment"], args["host"], args["run_id"])})
