"""What deployments recorded on a host have a claim to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscale_deploy.facts.model import Facts


def current(facts: Facts) -> tuple[Mapping[str, Any], ...]:
    """Records of deployments that were not stopped, on the boot that the host is in."""
    return tuple(
        record
        for record in facts.deployments
        if isinstance(record.get("deployment"), str)
        and not record.get("stopped_at")
        and record.get("boot_id") == facts.boot_id
        and "broken" not in record
    )


def own(facts: Facts, deployment: str) -> tuple[Mapping[str, Any], ...]:
    """Current records of this deployment."""
    return tuple(record for record in current(facts) if record.get("deployment") == deployment)


def others(facts: Facts, deployment: str) -> tuple[Mapping[str, Any], ...]:
    """Current records of other deployments: what they hold is taken, also while they are still starting."""
    return tuple(record for record in current(facts) if record.get("deployment") != deployment)


def held_gpus(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Indexes of the GPUs that a record claims."""
    gpus = record.get("gpus")
    return tuple(each for each in gpus if isinstance(each, int)) if isinstance(gpus, (list, tuple)) else ()


def held_ports(record: Mapping[str, Any]) -> tuple[int, ...]:
    """The ports that a record claims."""
    ports = record.get("ports")
    return tuple(each for each in ports.values() if isinstance(each, int)) if isinstance(ports, Mapping) else ()
