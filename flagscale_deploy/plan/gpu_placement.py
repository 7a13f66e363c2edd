"""Decide which GPUs of which hosts each instance gets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.gpu_use import Busy, Free, describe_free
from flagscale_deploy.plan.model import Placement
from flagscale_deploy.plan.spread import BACKEND, EQUAL, executor_of, local_size, shares, spreads, why_one_host
from flagscale_deploy.support.units import counted

ALL = ""


def place(
    spec: ServeSpec,
    eligible: Mapping[str, Sequence[Host]],
    free: Free,
    busy: Busy,
    faults: list[Fault],
    held: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> tuple[Placement, ...]:
    """Return a placement for every replica of every model, on the hosts that are `eligible` for it, the head first.

    Assigned GPUs are removed from `free`; replicas without room become faults. Models with as many replicas as there is
    room for come last, and get their replicas in turn. Instances stay on GPUs that they have (`held`, by name and
    host), unless another one has no room then.
    """
    if held:
        left, wrong, placed = dict(free), list[Fault](), _Placed()
        _place_again(spec, eligible, left, held, placed)
        placements = _place(spec, eligible, left, busy, wrong, placed)
        if not wrong:
            free.update(left)
            return placements
    return _place(spec, eligible, free, busy, faults, _Placed())


def _place_again(
    spec: ServeSpec,
    eligible: Mapping[str, Sequence[Host]],
    free: Free,
    held: Mapping[str, Mapping[str, Sequence[int]]],
    placed: _Placed,
) -> None:
    """Place the replicas that may stay where they are."""
    for model in spec.engines:
        hosts = {host.name: host for host in eligible[model.label]}
        for replica in range(len(held) if model.replicas == "auto" else model.replicas):
            gpus = held.get(f"{model.label}/{replica}", {})
            if gpus and gpus.keys() <= hosts.keys():
                there = {name: [index for index in dict.fromkeys(gpus[name]) if index in free[name]] for name in gpus}
                again = _place_one(spec, model, replica, [hosts[name] for name in gpus], there, placed)
                if again is not None:
                    placed.take(again, free)


def _place(
    spec: ServeSpec,
    eligible: Mapping[str, Sequence[Host]],
    free: Free,
    busy: Busy,
    faults: list[Fault],
    placed: _Placed,
) -> tuple[Placement, ...]:
    """Place the replicas that are not `placed` yet, and return all."""
    initial = dict(free)
    for model in spec.engines:
        before = dict(free)
        for replica in range(0 if model.replicas == "auto" else model.replicas):
            if placed.has(model, replica):
                continue
            placement = _place_one(spec, model, replica, eligible[model.label], free, placed)
            if placement is None:
                faults.append(_no_room(spec, model, replica, eligible[model.label], busy, _Free(free, before, initial)))
                break
            placed.take(placement, free)
    waiting = [model for model in spec.engines if model.replicas == "auto"]
    replica = 0
    while waiting:
        for model in [model for model in waiting if not placed.has(model, replica)]:
            placement = _place_one(spec, model, replica, eligible[model.label], free, placed)
            full = model.gpus_needed == 0 and replica >= len(eligible[model.label])
            if placement is None or full:
                waiting.remove(model)
                if replica == 0:
                    faults.append(
                        _no_room(spec, model, replica, eligible[model.label], busy, _Free(free, free, initial))
                    )
            else:
                placed.take(placement, free)
        replica += 1
    return placed.in_order(spec)


class _Placed:
    """The placements so far, and how many of each model, and of ALL, a host drives."""

    def __init__(self) -> None:
        self.placements: list[Placement] = []
        self.drivers: dict[str, Counter[str]] = defaultdict(Counter)
        self._names: set[str] = set()

    def has(self, model: ModelSpec, replica: int) -> bool:
        """Return whether a replica has a place."""
        return f"{model.label}/{replica}" in self._names

    def in_order(self, spec: ServeSpec) -> tuple[Placement, ...]:
        """Return the placements by model, those of models with as many replicas as fit behind them and in turn."""
        order = {model.label: at for at, model in enumerate(spec.engines)}
        auto = {model.label for model in spec.engines if model.replicas == "auto"}

        def position(placement: Placement) -> tuple[bool, int, int, int]:
            in_turn = placement.label in auto
            return in_turn, placement.replica * in_turn, order[placement.label], placement.replica

        return tuple(sorted(self.placements, key=position))

    def take(self, placement: Placement, free: Free) -> None:
        """Add a placement, and remove its GPUs from those that are free."""
        for name, indexes in placement.gpus.items():
            free[name] = [index for index in free[name] if index not in indexes]
        self.placements.append(placement)
        self._names.add(placement.name)
        for label in (ALL, placement.label):
            self.drivers[label][placement.driver] += 1


def _place_one(
    spec: ServeSpec, model: ModelSpec, replica: int, hosts: Sequence[Host], free: Free, placed: _Placed
) -> Placement | None:
    """Return the placement of a replica, None if there is no room.

    Replicas spread over hosts; among equals, the host with the fewest GPUs left over wins (best fit), then the first.
    """
    need = model.gpus_needed
    count = placed.drivers[model.label if need else ALL]
    fitting = [host.name for host in hosts if len(free[host.name]) >= need and local_size(model) is None]
    if fitting:
        name = min(fitting, key=lambda name: (count[name], len(free[name]) if need else 0))
        pinned = model.engine_args.get(BACKEND) != "ray"
        gpus = {name: tuple(free[name][:need])}
        return Placement(model.name, replica, gpus, name, executor_of(model, "one-host"), pinned, pool=model.pool)
    for spread in spreads(spec, model):
        shared = shares(model, spread, hosts, free) if need else None
        if shared is not None:
            executor, driver = executor_of(model, spread), next(iter(shared))
            return Placement(model.name, replica, shared, driver, executor, executor != "ray", spread, model.pool)
    return None


@dataclass(frozen=True)
class _Free:
    """The GPUs that are left, and those that were free before a model, and before any."""

    left: Free
    before: Free
    initial: Free


def _no_room(spec: ServeSpec, model: ModelSpec, replica: int, hosts: Sequence[Host], busy: Busy, free: _Free) -> Fault:
    """Return a fault that says what was needed, what was free before this model, and what would fit.

    `replica` is the first without room.
    """
    counts = [len(free.before[host.name]) for host in hosts]
    available = describe_free([host.name for host in hosts], free.before, busy)
    ways = spreads(spec, model)
    equal = local_size(model) is not None or set(ways) <= set(EQUAL)
    uneven = bool(ways) and equal and sum(counts) >= model.gpus_needed
    alone = "" if ways else f" on one host ({why_one_host(model)})"
    where = " in equal shares on each host" if uneven else alone
    if uneven and (local := local_size(model)) is not None:
        where = f" on hosts with data-parallel-size-local={local} each"
    copies, need = model.replicas, model.gpus_needed
    needed = f"replica {replica} needs {counted(need, 'GPU')}"
    if copies != "auto" and copies > 1:
        needed = f"num_replicas is {copies}, and each needs {counted(need, 'GPU')}: {copies * need} in all"
    return Fault(
        model.where,
        f"{needed}{where}; free GPUs: {available}",
        (_uneven_remedy(model) if uneven else "")
        or _as_replicas(model, max(counts), sum(counts))
        or _what_fits(replica, max(counts), sum(counts), alone=bool(alone))
        if any(free.initial.values()) or any(busy.values())
        else f"there is no GPU: add hosts with GPUs, or serve on CPU with deploy.models.{model.name}.num_gpus=0",
        "gpu-busy" if _fits_without(model, hosts, free.left, busy, alone=bool(alone)) else "placement",
    )


def _uneven_remedy(model: ModelSpec) -> str:
    if local_size(model) is not None:
        return "remove data-parallel-size-local, or choose hosts with room for as many ranks"
    ray = "; or set deploy.executor: ray, which takes any shares" if model.parallel("data") == 1 else ""
    return f"choose hosts with as many free GPUs each (hosts, --limit), or other parallel sizes{ray}"


def _as_replicas(model: ModelSpec, most: int, total: int) -> str:
    """Return how the data-parallel ranks of a model run as replicas, of which each fits on one host; "" if not so."""
    size, ranks = model.parallel("data"), model.gpus_needed
    fitting = most * size // ranks if ranks else 0
    if size == 1 or model.replicas != 1 or not fitting or total < ranks:
        return ""
    fitting = max(count for count in range(1, min(fitting, size) + 1) if size % count == 0)
    return f"set data-parallel-size to {fitting} and num_replicas to {size // fitting}: a router shares requests out"


def _what_fits(replica: int, most: int, total: int, *, alone: bool) -> str:
    if replica:
        fits = f"{replica} {'fits' if replica == 1 else 'fit'}: set num_replicas to {replica} (or auto)"
    elif alone or most == total:
        fits = f"{most} would fit on one host" if total else "none is free"
    else:
        fits = f"{most} would fit on one host, {total} on all"
    return f"{fits}: add hosts, lower the parallel sizes or replicas, or free GPUs (--force uses busy ones)"


def _fits_without(model: ModelSpec, hosts: Sequence[Host], free: Free, busy: Busy, *, alone: bool) -> bool:
    """Return whether there would be room if nobody else used GPUs."""
    counts = [len(free[host.name]) + len(busy.get(host.name, {})) for host in hosts]
    return bool(counts) and (max(counts) if alone else sum(counts)) >= model.gpus_needed
