"""Judge who uses GPUs that the deployment needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flagscale_deploy.checks.conditions import failed_if, on
from flagscale_deploy.checks.types import Context, Finding
from flagscale_deploy.facts.model import Facts, GpuProcess
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.claims import held_gpus, others
from flagscale_deploy.plan.gpu_use import GpuUse, busy_gpus
from flagscale_deploy.support.units import format_duration


def gpu_busy(context: Context) -> Iterator[Finding]:
    """Check that no other process uses the GPUs; a warning where the deployment has enough others."""
    lacking = _lacking(context)
    for name, facts in context.facts.items():
        if uses := _reported(context, facts):
            problem = "; ".join(f"GPU {index}: {_users(facts, index) or use}" for index, use in uses.items())
            cure = "they may stay: there are enough other GPUs"
            if lacking:
                cure = f"{_free(context, name, facts, uses)}   (or --force to use them anyway)"
            yield Finding(name, problem, "GPUs that no other process uses", cure, failed_if(lacking))


def busy_with(context: Context, host: str) -> frozenset[str]:
    """Return the deployments of ours that gpu-busy reports for a host, so that no other check has to."""
    facts = context.facts[host]
    reported = _reported(context, facts) if _lacking(context) else {}
    holding = [record for record in others(facts, _own(context)) if reported.keys() & set(held_gpus(record))]
    runs = [process.run for gpu in facts.gpus if gpu.index in reported for process in gpu.processes]
    return frozenset([str(record.get("deployment")) for record in holding] + [_deployment(run) for run in runs if run])


def _reported(context: Context, facts: Facts) -> dict[int, GpuUse]:
    """Return the GPUs in use that are worth a finding, with their users."""
    busy = busy_gpus(facts, _own(context))
    return {index: use for index, use in busy.items() if _lacking(context) or _is_foreign(facts, index, use)}


def _lacking(context: Context) -> bool:
    return any(fault.check == "gpu-busy" for fault in context.faults)


def _own(context: Context) -> str:
    return context.spec.name if context.spec else ""


def _deployment(run: str) -> str:
    return run.partition("/")[0]


def _free(context: Context, name: str, facts: Facts, indexes: Collection[int]) -> str:
    """Return commands that free GPUs: stop deployments, clean up crashed runs of ours, end other processes."""
    recorded = {str(record.get("deployment")) for record in others(facts, _own(context))}
    ours = busy_with(context, name)
    cures = [again(context.inventory, "stop", deployment) for deployment in sorted(ours & recorded)]
    cures += [again(context.inventory, "cleanup", deployment) for deployment in sorted(ours - recorded)]
    processes = [process for gpu in facts.gpus if gpu.index in indexes for process in gpu.processes]
    processes = [process for process in processes if _deployment(process.run) not in ours]
    if processes:
        pids = dict.fromkeys(str(process.pid) for process in processes)
        as_root = any(process.user != facts.user for process in processes)
        cures.append(on(context, name, "kill", *pids, root=as_root))
    return "; ".join(cures) or on(context, name, "fuser -v /dev/nvidia*", root=True)


def _is_foreign(facts: Facts, index: int, use: GpuUse) -> bool:
    """Return whether a GPU is used by more than runs of ours, which other checks report."""
    gpu = next((gpu for gpu in facts.gpus if gpu.index == index), None)
    if gpu is None or use.deployment:
        return False
    return not gpu.processes or any(not process.run for process in gpu.processes)


def _users(facts: Facts, index: int) -> str:
    gpu = next((gpu for gpu in facts.gpus if gpu.index == index), None)
    return ", ".join(_describe(process, facts.clock) for process in gpu.processes) if gpu else ""


def _describe(process: GpuProcess, clock: float) -> str:
    words = [f"pid {process.pid}", f"of {process.user}" if process.user else "", process.command[:80]]
    age = clock - process.since if process.since else 0.0
    details = [f"{process.memory_mib} MiB", f"for {format_duration(age)}" if 0 < age < 1e9 else ""]
    return " ".join(filter(None, words)) + f" ({', '.join(filter(None, details))})"
