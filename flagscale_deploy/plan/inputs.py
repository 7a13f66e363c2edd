"""Group what the planner works from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.model import Network


@dataclass(frozen=True)
class Inputs:
    """The specification, and the hosts as the inventory and the probe describe them.

    `facts` has every host of the inventory, or is empty if none was contacted; `networks` has every host.
    """

    spec: ServeSpec
    inventory: Inventory
    facts: Mapping[str, Facts]
    networks: Mapping[str, Network]
