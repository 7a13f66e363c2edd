"""List the deployments on the hosts of an inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.probe_hosts import observe
from flagscale_deploy.deploy.status import SCHEMA, Status, look
from flagscale_deploy.transport.fleet import Fleet


@dataclass(frozen=True)
class Listing:
    """Every deployment of which a host has a record, and why hosts could not be asked."""

    deployments: tuple[Status, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Return 3 when a host could not be asked, else the worst exit status of a deployment."""
        return 3 if self.unknown else max((status.exit_code for status in self.deployments), default=0)

    def json(self) -> dict[str, object]:
        """Return what `status --json` prints without a name."""
        shown = [status.json() for status in self.deployments]
        return {"schema": SCHEMA, "deployments": shown, "unknown": dict(self.unknown)}


def deployments(request: Request) -> Listing:
    """Return the state of every deployment on the hosts, running or stopped, by name."""
    with request.fleet() as fleet:
        names, unknown = recorded_names(fleet, request.timeouts.probe)
        head = request.inventory.head.name
        return Listing(tuple(look(fleet, name, head) for name in names), unknown)


def recorded_names(fleet: Fleet, timeout: float) -> tuple[list[str], dict[str, str]]:
    """Return the names of the deployments of which hosts have records, and why hosts could not be asked."""
    observations = observe(fleet, timeout=timeout).values()
    records = [record for seen in observations if seen.facts is not None for record in seen.facts.deployments]
    names = {name for record in records if isinstance(name := record.get("deployment"), str)}
    return sorted(names), {seen.host: seen.error.problem for seen in observations if seen.error is not None}
