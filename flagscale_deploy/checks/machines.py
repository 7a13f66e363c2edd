"""Whether every name of the inventory is a machine of its own: GPUs of one that has two would be handed out twice."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import one_host, word
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.support.units import counted


def distinct_hosts(scene: Scene) -> Iterator[Finding]:
    """Whether each name of the inventory is another machine: one that has two names is told by its boot and own name,
    or by its GPUs."""
    first: list[str] = []
    for name, facts in scene.facts.items():
        twin = next((each for each in first if _same(scene.facts[each], facts)), None)
        if twin is None:
            first.append(name)
            continue
        yield Finding(
            name,
            f"it is the machine that {twin} is: {_same(scene.facts[twin], facts)}",
            "a machine for each name",
            f"take one of them out of {word(scene.inventory.source)}, or: --limit {word(f'all,!{name}')}",
        )


def _same(one: Facts, other: Facts) -> str:
    """What shows that two hosts are one; containers on a machine share its boot, and may share its GPUs."""
    shared = {gpu.uuid for gpu in one.gpus if gpu.uuid} & {gpu.uuid for gpu in other.gpus}
    if shared:
        return f"the same {counted(len(shared), 'GPU')} ({min(shared)})"
    known = bool(one.boot_id and one.hostname)
    same = known and (one.boot_id, one.hostname) == (other.boot_id, other.hostname)
    return f"the same boot of {one.hostname}" if same else ""


MACHINES = (Check("distinct-hosts", "reach", distinct_hosts, "a machine for each name", one_host),)
