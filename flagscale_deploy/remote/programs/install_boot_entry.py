"""Install the entry that brings this host's part of a deployment back after a reboot (`deploy.restart.boot`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import scripts, state
from flagscale_deploy.remote.deployment.boot_entry import edit_crontab, enable, line, mechanism

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.run import BootEntryArguments, BootEntryReply

send: Callable[[BootEntryReply], None] = wire.send


def main(args: BootEntryArguments) -> None:
    """Make the entry that runs `scripts/boot.sh` when the host comes up."""
    deployment, host = args["deployment"], args["host"]
    by, why = mechanism(args["container"])
    if by == "systemd":
        enable(deployment, host)
    elif by == "crontab":
        edit_crontab(add=line(deployment, host))
    else:
        send({"why": why})
        return
    path = os.environ.get("PATH", os.defpath)  # this login's, for cron's own is short
    scripts.put(state.directory(deployment, host) / "path", path, 0o600)
    send({"by": by})
