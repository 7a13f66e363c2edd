"""Decide whose record tells what a deployment is: a host's word counts for that host, the head's for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.remote.messages.record import Record

COMMON = ("run_id", "configuration", "digest", "head", "hosts", "instances", "routers")
"""What the records of a run have in common on all its hosts."""


@dataclass(frozen=True)
class Authority:
    """The record that counts for the deployment.

    Without `trusted` it is not the head's, and nothing is sent where it says; `note` tells whose it is while something
    runs. `differing` has the hosts whose own records are of another run, or not as this one, in words.
    """

    record: Record | None
    trusted: bool
    note: str = ""
    differing: Mapping[str, str] = field(default_factory=dict)


def authority(head: str, records: Mapping[str, Record]) -> Authority:
    """Return the head's record or, where it has none that counts, the one that all other hosts have in common.

    `records` are those of the hosts that replied. Clocks of hosts decide nothing: each may be wrong, or lie. A head
    has a record of a deployment in which it has no part, too (`deploy/reserve.py`).
    """
    own = records.get(head)
    running = {name: record for name, record in records.items() if not record.get("stopped_at")}
    others = any(record.get("run_id") != (own or {}).get("run_id") for record in running.values())
    if own is not None and (head in running or not others):
        return Authority(own, trusted=True, differing=_differing(head, own, records))
    missing = f"{head}, the head of the inventory, has no record of a run that was not stopped"
    first = next(iter(running.values()), None)
    if first is None:
        return Authority(next(iter(records.values()), None), trusted=False)
    if any(_common(record) != _common(first) for record in running.values()):
        names = ", ".join(running)
        return Authority(own, trusted=False, note=f"{missing}, and those of {names} do not agree")
    return Authority(first, trusted=False, note=f"{missing}; shown is what {', '.join(running)} has of it")


def _common(record: Record) -> list[object]:
    return [record.get(key) for key in COMMON]


def _differing(head: str, own: Record, records: Mapping[str, Record]) -> dict[str, str]:
    """Describe the hosts of the head's record that have another one."""
    differing = {}
    for name in own.get("hosts", ()):
        record = records.get(name, own)
        if record.get("run_id") != own.get("run_id"):
            differing[name] = f"its record is of run {record.get('run_id')}, {head}'s of run {own.get('run_id')}"
        elif _common(record) != _common(own) and "change" not in own:  # else one is ahead of the other
            keys = ", ".join(key for key in COMMON if record.get(key) != own.get(key))
            differing[name] = f"its record differs from {head}'s ({keys})"
    return differing
