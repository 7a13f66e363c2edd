"""The command `hosts`: the inventory as it was understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import HOSTS, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="hosts", example="flagscale-deploy hosts -i hosts.yaml --limit rack1")
@options(*HOSTS, JSON)
@command
def hosts(console: Console, *, as_json: bool, **words: Any) -> int:
    """Show how the inventory was understood; contact no host."""
    from flagscale_deploy.inventory.listing import hosts_json
    from flagscale_deploy.output import hosts as view

    inventory = request_of(console, words).inventory
    if as_json:
        console.json(hosts_json(inventory))
    else:
        view.show_inventory(console, inventory)
    return 0
