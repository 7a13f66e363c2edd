"""List the deployments on the hosts of an inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.probe_hosts import observe
from flagscale_deploy.deploy.status import SCHEMA, Status, look
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.paths import DEPLOYMENT_NAME
from flagscale_deploy.transport.fleet import Fleet

MOST_NAMES = 100
"""How many deployments are listed of one host: each is looked at on every host."""
ALL_SECONDS = 120.0
"""How long all looks together may take."""


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
        deadline, statuses = Deadline(ALL_SECONDS), []
        for name in names:
            if deadline.expired:
                unknown[name] = f"not looked at: the deployments before it took {ALL_SECONDS:g} s; give its --name"
            else:
                statuses.append(look(fleet, name, request.inventory.head.name))
        return Listing(tuple(statuses), unknown)


def recorded_names(fleet: Fleet, timeout: float) -> tuple[list[str], dict[str, str]]:
    """Return the names of the deployments of which hosts have records, and why hosts could not be asked."""
    names: set[str] = set()
    unknown: dict[str, str] = {}
    for seen in observe(fleet, timeout=timeout).values():
        records = seen.facts.deployments if seen.facts is not None else ()
        recorded = {name for record in records if isinstance(name := record.get("deployment"), str)}
        valid = sorted(filter(DEPLOYMENT_NAME.fullmatch, recorded))
        names.update(valid[:MOST_NAMES])
        if seen.error is not None:
            unknown[seen.host] = seen.error.problem
        elif len(valid) > MOST_NAMES or len(valid) < len(recorded):
            unknown[seen.host] = f"not all of its {len(recorded):,} deployments are listed; give --name"
    return sorted(names), unknown
