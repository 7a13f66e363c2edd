"""Check the GPUs of every host: present, alike, sound and free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from flagscale_deploy.checks.conditions import engine_hosts, engines, failed_if, no_facts, no_plan, on, passed, summary
from flagscale_deploy.checks.gpu_users import gpu_busy
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.facts.model import Gpu
from flagscale_deploy.plan.gpu_use import miscounted
from flagscale_deploy.plan.software import odd_ones
from flagscale_deploy.support.units import counted

ALIKE_SHARE = 0.02
"""GPUs of one model report memory sizes that differ by less than this: firmware and ECC reserve some."""


def gpu_driver(context: Context) -> Iterator[Finding]:
    """Check that nvidia-smi works where it is installed: driver loaded, library and module of one version."""
    for name, facts in context.facts.items():
        if facts.gpu_error:
            needs = context.inventory[name].type != "cpu"
            yield Finding(
                name,
                f"nvidia-smi fails: {facts.gpu_error}",
                "a working driver",
                on(context, name, "modprobe nvidia && nvidia-smi", root=True) + "   (or reboot the host)",
                failed_if(needs),
            )
    versions = [facts.driver_version for facts in context.facts.values() if facts.driver_version]
    yield passed(summary(versions) or "no NVIDIA driver")


def gpu_count(context: Context) -> Iterator[Finding]:
    """Check that hosts have as many GPUs as the inventory says."""
    for name, facts in context.facts.items():
        fault = miscounted(context.inventory[name], facts)
        if fault is not None and fault.check == "gpu-count":
            yield Finding(
                name,
                fault.problem,
                counted(context.inventory[name].gpus or 0, "GPU"),
                f"{on(context, name, 'nvidia-smi', '-L')}   (and correct gpus in the inventory)",
            )
    yield passed(summary(counted(len(facts.gpus), "GPU") for facts in context.facts.values()))


def gpu_alike(context: Context) -> Iterator[Finding]:
    """Check that the GPUs of an instance have the same model and memory size."""
    for instance in engines(context):
        used = {
            (host, gpu.index): gpu
            for host, indexes in instance.gpus.items()
            for gpu in (context.facts[host].gpus if host in context.facts else ())
            if gpu.index in indexes
        }
        kinds = {
            f"{host} {index}": f"{gpu.name} of {_memory(gpu, used.values())}" for (host, index), gpu in used.items()
        }
        odd, usual = odd_ones(kinds)
        for host, kind in dict.fromkeys((key.rpartition(" ")[0], kind) for key, kind in odd.items()):
            yield Finding(
                host,
                f"{kind} for {instance.name}",
                f"{usual}, as its other GPUs",
                f"choose hosts with equal GPUs: set hosts of deploy.models.{instance.model} in the configuration",
            )


def gpu_ecc(context: Context) -> Iterator[Finding]:
    """Check that GPUs had no uncorrected memory errors since their driver was loaded."""
    for name, facts in context.facts.items():
        bad = {gpu.index: gpu.ecc_uncorrected for gpu in facts.gpus if gpu.ecc_uncorrected}
        if bad:
            problem = ", ".join(
                f"GPU {index}: {counted(errors, 'uncorrected ECC error')}" for index, errors in bad.items()
            )
            reset = on(context, name, "nvidia-smi", "--gpu-reset", "-i", ",".join(map(str, bad)), root=True)
            yield Finding(name, problem, "none", f"{reset}   (if errors come back, replace the GPU)")


def gpu_persistence(context: Context) -> Iterator[Finding]:
    """Check that the driver stays loaded while no GPU is used; otherwise each start takes seconds longer."""
    for name, facts in context.facts.items():
        off = [gpu.index for gpu in facts.gpus if gpu.persistence is False]
        if off:
            yield Finding(
                name,
                f"persistence mode is off for {_listed(off)}",
                "on",
                on(context, name, "nvidia-smi", "-pm", "1", root=True),
                "warning",
            )


def gpu_mig(context: Context) -> Iterator[Finding]:
    """Check that no GPU is in MIG mode: such a GPU can't be used by its index."""
    for name, facts in context.facts.items():
        split = [gpu.index for gpu in facts.gpus if gpu.mig]
        if split:
            which = ",".join(map(str, split))
            yield Finding(
                name,
                f"MIG mode is on for {_listed(split)}",
                "off",
                on(context, name, "nvidia-smi", "-mig", "0", "-i", which, root=True),
            )


def _memory(gpu: Gpu, alike: Iterable[Gpu]) -> str:
    """Return the GPU's memory size, as the first GPU with about the same size reports it."""
    sizes = [other.memory_total_mib for other in alike]
    near = [size for size in sizes if abs(size - gpu.memory_total_mib) <= ALIKE_SHARE * max(size, 1)]
    return f"{(near[0] if near else gpu.memory_total_mib) / 1024:.0f} GiB"


def _listed(indexes: list[int]) -> str:
    return f"{'GPU' if len(indexes) == 1 else 'GPUs'} {', '.join(map(str, indexes))}"


def _with_gpu(condition: Callable[[Gpu], bool]) -> Callable[[Context], list[str]]:
    """Return a function that lists the hosts with a GPU that meets a condition."""
    return lambda context: [name for name, facts in context.facts.items() if any(map(condition, facts.gpus))]


def _no_gpu(context: Context) -> str:
    return no_facts(context) or ("" if any(facts.gpus for facts in context.facts.values()) else "no host has GPUs")


def _no_engine_on_gpus(context: Context) -> str:
    used = Counter(bool(indexes) for instance in engines(context) for indexes in instance.gpus.values())
    return no_plan(context) or ("" if used[True] else "nothing is planned on GPUs")


GPUS = (
    Check("gpu-driver", "gpus", gpu_driver, "nvidia-smi answers", no_facts),
    Check("gpu-count", "gpus", gpu_count, "as many as the inventory says", no_facts),
    Check(
        "gpu-alike",
        "gpus",
        gpu_alike,
        "one model and memory size",
        _no_engine_on_gpus,
        looks_at=lambda context: [name for name in engine_hosts(context) if context.facts[name].gpus],
    ),
    Check("gpu-busy", "gpus", gpu_busy, "nobody uses them", _no_gpu, looks_at=_with_gpu(lambda _: True)),
    Check(
        "gpu-ecc",
        "gpus",
        gpu_ecc,
        "no uncorrected errors",
        _no_gpu,
        looks_at=_with_gpu(lambda gpu: gpu.ecc_uncorrected is not None),
    ),
    Check(
        "gpu-persistence",
        "gpus",
        gpu_persistence,
        "on",
        _no_gpu,
        "warning",
        looks_at=_with_gpu(lambda gpu: gpu.persistence is not None),
    ),
    Check("gpu-mig", "gpus", gpu_mig, "off", _no_gpu, looks_at=_with_gpu(lambda gpu: gpu.mig is not None)),
)
