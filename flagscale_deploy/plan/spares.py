"""Choose hosts that stand by for the ranks of a group (`deploy.restart.spare`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.gpu_use import Free
from flagscale_deploy.plan.model import InstancePlan, Placement
from flagscale_deploy.plan.rank_flags import Shape


def add_spares(
    spec: ServeSpec, placements: Sequence[Placement], eligible: Mapping[str, Sequence[Host]], free: Free
) -> tuple[Placement, ...]:
    """Return the placements, groups with every host that has the free GPUs of a follower, and none of the group.

    Nothing is taken from `free`: a spare holds no GPUs. Two groups have the same ones only where there are no others.
    """
    promised: dict[str, list[int]] = {}
    placed = []
    for placement in placements:
        need = _followers_gpus(placement)[0] if moves_ranks(spec, placement) else 0
        spares: dict[str, tuple[int, ...]] = {}
        for host in eligible[placement.label] if need else ():
            taken = promised.setdefault(host.name, [])
            first = sorted(free[host.name], key=lambda index: (index in taken, index))[:need]
            if host.name not in placement.hosts and len(first) == need:
                spares[host.name] = tuple(sorted(first))
                taken += first
        placed.append(replace(placement, spares=spares))
    return tuple(placed)


def spare_faults(spec: ServeSpec, placements: Sequence[Placement], where: Mapping[str, str]) -> list[Fault]:
    """Return groups whose ranks cannot be moved, where that is asked for; `where` is the place of each model."""
    return [
        Fault(where[placement.label],
              f"deploy.restart.spare moves no rank of replica {placement.replica}: {why}",
              "set deploy.restart.spare: false", "placement")
        for placement in placements
        if _asks(spec, placement) and (why := why_unmovable(placement))
    ]  # fmt: skip


def moves_ranks(spec: ServeSpec, placement: Placement) -> bool:
    """Return whether the ranks of a group but the driver's go to another host where theirs is lost."""
    return _asks(spec, placement) and not why_unmovable(placement)


def _asks(spec: ServeSpec, placement: Placement) -> bool:
    return spec.restart.supervised and spec.restart.spare and placement.pinned and len(placement.hosts) > 1


def why_unmovable(placement: Placement) -> str:
    """Return why no rank of a group can be moved to another host; "" where each but the driver's can."""
    if placement.spread == "data-parallel-hybrid":
        return "each answers clients at its own host's address"
    if placement.spread == "data-parallel" and placement.pool:
        return "each hands its KV cache over at its own host's address"
    return "they have unequal shares of the GPUs" if len(set(_followers_gpus(placement))) > 1 else ""


def _followers_gpus(placement: Placement) -> list[int]:
    return [len(placement.gpus[host]) for host in placement.hosts[1:]]


def rank_words(shapes: Sequence[Shape]) -> dict[int, tuple[str, ...]]:
    """Return what only one of the followers has in its command line, by rank."""
    followers = [shape for shape in shapes if shape.number]
    differing = [name for name in followers[0].flags if len({str(shape.flags[name]) for shape in followers}) > 1]
    return {shape.number: tuple(f"--{name}={shape.flags[name]}" for name in differing) for shape in followers}


def without(free: Free, placements: Sequence[Placement]) -> Free:
    """Return the free GPUs but those that spares may need: Ray gives them to nobody."""
    needed = {(host, at) for placement in placements for host, indexes in placement.spares.items() for at in indexes}
    return {host: [index for index in indexes if (host, index) not in needed] for host, indexes in free.items()}


def lacks_spares(instance: InstancePlan) -> bool:
    """Return whether a group whose ranks may move has no host to move them to."""
    return bool(instance.rank_words) and not instance.spares
