"""Group what a plan is made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from flagscale_deploy.config.program_files import ProgramFiles
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.claims import Held
from flagscale_deploy.plan.model import Network
from flagscale_deploy.plan.network import plan_networks
from flagscale_deploy.rendering.render import Templates


@dataclass(frozen=True)
class Inputs:
    """The specification, and the hosts as the inventory and the probe describe them: equal inputs give equal plans.

    `facts` has every host of the inventory, or is empty if none was contacted; `program` are the files of the program
    that the specification runs, if it runs one. Faults of the checks in `skip` are ignored, if a plan can be made in
    spite of them: without gpu-busy, busy GPUs are used too. Servers get again what is `held` by those of their names
    that run, where that is possible.
    """

    inventory: Inventory
    spec: ServeSpec
    facts: Mapping[str, Facts]
    run_id: str
    templates: Templates
    program: ProgramFiles | None = None
    skip: Collection[str] = ()
    held: Held = field(default_factory=Held)

    @property
    def networks(self) -> Mapping[str, Network]:
        """Return the data network of every host."""
        return self._networks[0]

    @property
    def network_faults(self) -> list[Fault]:
        """Return what is wrong with the hosts' addresses."""
        return list(self._networks[1])

    @property
    def uses_busy_gpus(self) -> bool:
        """Return whether GPUs that other processes use count as free."""
        return "gpu-busy" in self.skip

    @cached_property
    def _networks(self) -> tuple[Mapping[str, Network], list[Fault]]:
        return plan_networks(self.inventory.hosts, self.facts)
