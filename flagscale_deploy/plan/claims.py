"""Read the GPUs and ports that recorded deployments claim on a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.facts.model import Facts
from flagscale_deploy.remote.messages.record import Record


@dataclass(frozen=True)
class Held:
    """What a deployment has that runs: GPUs by instance and host, ports by host and use, GPUs of Ray's nodes."""

    gpus: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    ports: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    ray: Mapping[str, Sequence[int]] = field(default_factory=dict)


def current(facts: Facts) -> tuple[Record, ...]:
    """Return the records of deployments that were not stopped, since the host's last boot."""
    return tuple(
        record
        for record in facts.deployments
        if isinstance(record.get("deployment"), str)
        and not record.get("stopped_at")
        and record.get("boot_id") == facts.boot_id
        and "broken" not in record
    )


def own(facts: Facts, deployment: str) -> tuple[Record, ...]:
    """Return the current records of this deployment."""
    return tuple(record for record in current(facts) if record.get("deployment") == deployment)


def others(facts: Facts, deployment: str) -> tuple[Record, ...]:
    """Return the current records of other deployments: what they claim is taken, also while they still start."""
    return tuple(record for record in current(facts) if record.get("deployment") != deployment)


def held_gpus(record: Record) -> tuple[int, ...]:
    """Return the indexes of the GPUs that a record claims."""
    gpus = record.get("gpus")
    return tuple(index for index in gpus if isinstance(index, int)) if isinstance(gpus, (list, tuple)) else ()


def held_ports(record: Record) -> tuple[int, ...]:
    """Return the ports that a record claims."""
    ports = record.get("ports")
    return tuple(port for port in ports.values() if isinstance(port, int)) if isinstance(ports, Mapping) else ()
