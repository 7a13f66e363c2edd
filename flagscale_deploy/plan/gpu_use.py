"""Tell which GPUs are there, who uses them, and which may be assigned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.claims import held_gpus, others, own
from flagscale_deploy.remote.system.gpus import BUSY_SHARE
from flagscale_deploy.support.units import counted

Free = dict[str, list[int]]


@dataclass(frozen=True)
class GpuUse:
    """Who uses a GPU, in words; `deployment` where it is one that recorded a claim to it."""

    holder: str
    deployment: str = ""

    def __str__(self) -> str:
        return self.holder


Busy = Mapping[str, Mapping[int, GpuUse]]


def free_gpus(
    hosts: Sequence[Host], spec: ServeSpec, facts: Mapping[str, Facts], busy: Busy, faults: list[Fault]
) -> Free:
    """Return the indexes of the GPUs that may be assigned, by host; wrong counts in the inventory are faults."""
    return {
        host.name: _free_on(host, _allowed(host, spec), facts.get(host.name), busy.get(host.name, {}), faults)
        for host in hosts
    }


def busy_gpus(facts: Facts, deployment: str) -> dict[int, GpuUse]:
    """Return the GPUs in use and who uses them; what `deployment` itself uses does not count."""
    held = {index for record in own(facts, deployment) for index in held_gpus(record)}
    busy = {}
    for gpu in facts.gpus:
        if gpu.index in held:
            continue
        holders = [f"{p.command or 'a process'} (pid {p.pid}{', ' + p.user if p.user else ''})" for p in gpu.processes]
        if holders:
            busy[gpu.index] = GpuUse(", ".join(holders))
        elif is_full(gpu.memory_used_mib, gpu.memory_total_mib):
            busy[gpu.index] = GpuUse(f"{gpu.memory_used_mib} MiB in use by processes that cannot be seen")
    for record in others(facts, deployment):
        for index in held_gpus(record):
            busy.setdefault(index, GpuUse(f"deployment {record['deployment']}", str(record["deployment"])))
    return busy


def describe_free(hosts: Iterable[str], free: Free, busy: Busy) -> str:
    """Return how many GPUs each host has free, and who uses which."""
    available = ", ".join(f"{name} {len(free[name])}" for name in hosts)
    taken = "; ".join(f"{name} GPU {index}: {use}" for name, gpus in busy.items() for index, use in gpus.items())
    return f"{available} (in use: {taken})" if taken else available


def miscounted(host: Host, facts: Facts) -> Fault | None:
    """Return a fault if a host has fewer GPUs than the inventory says."""
    present = len(facts.gpus)
    if host.gpus is None or present >= host.gpus or _unseen(host, facts):
        return None
    why = f" ({facts.gpu_error})" if facts.gpu_error else ""
    return Fault(
        host.name,
        f"the inventory says {counted(host.gpus, 'GPU')}, the host has {present}{why}",
        "correct gpus in the inventory, or repair the driver: nvidia-smi",
        "gpu-driver" if facts.gpu_error else "gpu-count",
    )


def is_full(used_mib: int, total_mib: int) -> bool:
    """Return whether a GPU is busy by its memory; one whose driver does not say how much it has is not."""
    return total_mib > 0 and used_mib > BUSY_SHARE * total_mib


def _free_on(
    host: Host, allowed: frozenset[int] | None, facts: Facts | None, busy: Mapping[int, GpuUse], faults: list[Fault]
) -> list[int]:
    if host.type == "cpu" and host.gpus is None:
        return []
    if facts is None:
        if host.gpus is None:
            faults.append(Fault(host.name, "its number of GPUs is unknown without contacting it",
                                "set gpus for it in the inventory, or plan without --offline",
                                "placement"))  # fmt: skip
        return _only(range(host.gpus or 0), allowed)
    present = [gpu.index for gpu in facts.gpus]
    if host.gpus is not None and _unseen(host, facts):
        return _only(range(host.gpus), allowed)
    if (fault := miscounted(host, facts)) is not None:
        faults.append(fault)
    return _only((index for index in present if index not in busy), allowed)[: host.gpus]


def _unseen(host: Host, facts: Facts) -> bool:
    """Return whether its accelerators are of a kind that nvidia-smi doesn't know."""
    return host.type not in ("gpu", "cpu") and not facts.gpus


def _allowed(host: Host, spec: ServeSpec) -> frozenset[int] | None:
    """Return the GPUs in the user's CUDA_VISIBLE_DEVICES (FlagScale's published files set it), None if unset."""
    value = host.env.get("CUDA_VISIBLE_DEVICES", spec.env.get("CUDA_VISIBLE_DEVICES"))
    if value is None:
        return None
    indexes = [word.strip() for word in value.split(",") if word.strip()]
    return frozenset(int(word) for word in indexes if word.isdigit()) if all(map(str.isdigit, indexes)) else None


def _only(indexes: Iterable[int], allowed: frozenset[int] | None) -> list[int]:
    return [index for index in indexes if allowed is None or index in allowed]
