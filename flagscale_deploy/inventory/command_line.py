"""Command lines of this tool, to paste, for the hosts of the command at hand."""

from __future__ import annotations

from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.support.shell import join


def again(inventory: Inventory, act: str, deployment: str) -> str:
    """Return `flagscale-deploy ACT -i hosts.yaml --name DEPLOYMENT`; without `-i` it would act on this machine."""
    options = ("-i", inventory.source) if inventory.options is None else inventory.options
    words = ["flagscale-deploy", act, *options, "--name", deployment]
    return join(word.replace("\0", "?") for word in words)
