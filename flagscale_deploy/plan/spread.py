"""Decide how a replica that needs several hosts spreads over them, and what share each host gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.model import Executor, Spread
from flagscale_deploy.plan.vllm import is_on

BACKEND, LOCAL = "distributed-executor-backend", "data-parallel-size-local"
Shares = dict[str, tuple[int, ...]]
EQUAL: tuple[Spread, ...] = ("mp", "data-parallel-hybrid", "data-parallel-ray")
"""Those that need the same share of GPUs on each host."""


def spreads(spec: ServeSpec, model: ModelSpec) -> tuple[Spread, ...]:
    """Return the ways in which a replica may spread over hosts, the best first; none if it has to be on one.

    vLLM 0.32 with Ray's executor starts no data-parallel rank on another host: it waits 601 s for it (vllm#44878).
    """
    backend = model.engine_args.get(BACKEND)
    if model.parallel("data") > 1:
        if model.engine_args.get("data-parallel-backend") == "ray":
            return ("data-parallel-ray",)
        if backend not in (None, "mp", "uni"):
            return ()
        return (
            ("data-parallel-hybrid",) if is_on(model.engine_args.get("data-parallel-hybrid-lb")) else ("data-parallel",)
        )
    chosen = spec.executor if backend is None else backend
    by_executor: Mapping[object, tuple[Spread, ...]] = {"ray": ("ray",), "mp": ("mp",), "auto": ("mp", "ray")}
    return by_executor.get(chosen, ())


def why_one_host(model: ModelSpec) -> str:
    """Return why a replica without a way to spread has to be on one host."""
    backend, size = model.engine_args.get(BACKEND), model.parallel("data")
    if size > 1:
        return f"data-parallel-size is {size}, and with {BACKEND} {backend} vLLM starts no rank on another host"
    return f"{BACKEND} is {backend}"


def executor_of(model: ModelSpec, spread: Spread) -> Executor:
    """Return what runs the ranks of a replica."""
    chosen = model.engine_args.get(BACKEND)
    if spread in ("ray", "data-parallel-ray"):
        return "ray"
    if spread != "mp" and chosen in ("uni", "mp", "ray", "external_launcher"):
        return chosen
    inner = model.parallel("tensor") * model.parallel("pipeline")
    return "uni" if (spread.startswith("data-parallel") and inner == 1) or model.world_size == 1 else "mp"


def local_size(model: ModelSpec) -> int | None:
    """Return how many data-parallel ranks each host is to have, None if that is for the plan to say."""
    local = model.engine_args.get(LOCAL)
    return None if local is None or int(str(local)) >= model.parallel("data") else int(str(local))


def shares(model: ModelSpec, spread: Spread, hosts: Sequence[Host], free: Mapping[str, Sequence[int]]) -> Shares | None:
    """Return the GPUs of each host that a replica gets, in the order of `hosts`; None if there is no room.

    With Ray it is the fewest hosts, the last with what is missing; else equal shares on the fewest hosts, which
    data-parallel ranks behind one API server may do without.
    """
    need, ranks = model.gpus_needed, model.parallel("data")
    unit = need // ranks if spread.startswith("data-parallel") else 1
    capacity = {host.name: len(free[host.name]) // unit for host in hosts}
    counts = None if spread == "ray" else _equal(need // unit, capacity, local_size(model))
    if counts is None and spread not in EQUAL and local_size(model) is None:
        counts = _fewest(need // unit, capacity)
    if counts is None:
        return None
    return {name: tuple(free[name][: count * unit]) for name, count in counts.items()}


def _equal(need: int, capacity: Mapping[str, int], local: int | None) -> dict[str, int] | None:
    """Return the same count on the fewest hosts, those with the most room; None if there is no room for that."""
    for number in _divisors(need, local):
        roomy = sorted(
            (name for name in capacity if capacity[name] >= need // number), key=lambda name: -capacity[name]
        )
        if len(roomy) >= number:
            chosen = set(roomy[:number])
            return {name: need // number for name in capacity if name in chosen}
    return None


def _divisors(need: int, local: int | None) -> Iterator[int]:
    """Yield numbers of hosts that give equal shares, or the one where each has `local`."""
    if local is not None:
        yield from [need // local] if need % local == 0 else []
    else:
        yield from (number for number in range(2, need + 1) if need % number == 0)


def _fewest(need: int, capacity: Mapping[str, int]) -> dict[str, int] | None:
    """Return counts on the fewest hosts: those with the most room, the last in order with what is missing."""
    chosen, missing = set(), need
    for name in sorted(capacity, key=lambda name: -capacity[name]):
        if missing > 0 and capacity[name]:
            chosen.add(name)
            missing -= capacity[name]
    if missing > 0:
        return None
    counts, missing = {}, need
    for name in capacity:
        if name in chosen:
            counts[name] = min(capacity[name], missing)
            missing -= counts[name]
    return {name: count for name, count in counts.items() if count}
