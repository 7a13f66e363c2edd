"""Check that every name in the inventory is a different machine, so that no GPU is used twice."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import one_host, shell_word
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.support.units import counted


def distinct_hosts(context: Context) -> Iterator[Finding]:
    """Check that each name in the inventory is a different machine, by boot ID and hostname, or by its GPUs."""
    first: list[str] = []
    for name, facts in context.facts.items():
        twin = next((other for other in first if _same(context.facts[other], facts)), None)
        if twin is None:
            first.append(name)
            continue
        yield Finding(
            name,
            f"it is the same machine as {twin}: {_same(context.facts[twin], facts)}",
            "a different machine for each name",
            f"remove one of the names from {shell_word(context.inventory.source)}, "
            f"or use --limit {shell_word(f'all,!{name}')}",
        )


def _same(one: Facts, other: Facts) -> str:
    """Return why two hosts are the same machine; containers on a machine share its boot, and may share its GPUs."""
    shared = {gpu.uuid for gpu in one.gpus if gpu.uuid} & {gpu.uuid for gpu in other.gpus}
    if shared:
        return f"the same {counted(len(shared), 'GPU')} ({min(shared)})"
    comparable = bool(one.boot_id and one.hostname)
    same = comparable and (one.boot_id, one.hostname) == (other.boot_id, other.hostname)
    return f"the same boot ID and hostname {one.hostname}" if same else ""


MACHINES = (Check("distinct-hosts", "reach", distinct_hosts, "a different machine for each name", one_host),)
