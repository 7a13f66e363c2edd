"""Who uses GPUs that the deployment would have."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flagscale_deploy.checks.conditions import at_worst, on
from flagscale_deploy.checks.model import Finding, Scene
from flagscale_deploy.facts.model import Facts, GpuProcess
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.claims import held_gpus, others
from flagscale_deploy.plan.placement import GpuUse, busy_gpus
from flagscale_deploy.support.units import format_duration


def gpu_busy(scene: Scene) -> Iterator[Finding]:
    """Whether somebody else uses GPUs: failed where what is left is too little."""
    lacking = _lacking(scene)
    for name, facts in scene.facts.items():
        if told := _told(scene, facts):
            said = "; ".join(f"GPU {index}: {_who(facts, index) or who}" for index, who in told.items())
            cure = f"{_free(scene, name, facts, told)}   (or --force to use them anyway)"
            yield Finding(name, said, "GPUs that nobody else uses", cure, at_worst(lacking))


def busy_with(scene: Scene, host: str) -> frozenset[str]:
    """The deployments of ours that gpu-busy tells of a host, so that nothing else has to."""
    facts = scene.facts[host]
    told = _told(scene, facts) if _lacking(scene) else {}
    holding = [record for record in others(facts, _own(scene)) if told.keys() & set(held_gpus(record))]
    runs = [user.run for gpu in facts.gpus if gpu.index in told for user in gpu.processes]
    return frozenset([str(each.get("deployment")) for each in holding] + [run.partition("/")[0] for run in runs if run])


def _told(scene: Scene, facts: Facts) -> dict[int, GpuUse]:
    """The GPUs in use that are to be told of, with who uses them."""
    busy = busy_gpus(facts, _own(scene))
    return {index: who for index, who in busy.items() if _lacking(scene) or _is_foreign(facts, index, who)}


def _lacking(scene: Scene) -> bool:
    return any(fault.check == "gpu-busy" for fault in scene.faults)


def _own(scene: Scene) -> str:
    return scene.spec.name if scene.spec else ""


def _free(scene: Scene, name: str, facts: Facts, told: Collection[int]) -> str:
    """What frees GPUs: a deployment is stopped, a crashed run of ours cleaned up, a stranger's process ended."""
    known = {str(record.get("deployment")) for record in others(facts, _own(scene))}
    ours = busy_with(scene, name)
    cures = [again(scene.inventory, "stop", each) for each in sorted(ours & known)]
    cures += [again(scene.inventory, "cleanup", each) for each in sorted(ours - known)]
    users = [user for gpu in facts.gpus if gpu.index in told for user in gpu.processes]
    users = [user for user in users if user.run.partition("/")[0] not in ours]
    if users:
        pids = dict.fromkeys(str(user.pid) for user in users)
        cures.append(on(scene, name, "kill", *pids, root=any(user.user != facts.user for user in users)))
    return "; ".join(cures) or on(scene, name, "fuser -v /dev/nvidia*", root=True)


def _is_foreign(facts: Facts, index: int, use: GpuUse) -> bool:
    """Whether a GPU's user is no run of ours: those are told as what was left over."""
    gpu = next((each for each in facts.gpus if each.index == index), None)
    if gpu is None or use.deployment:
        return False
    return not gpu.processes or any(not user.run for user in gpu.processes)


def _who(facts: Facts, index: int) -> str:
    gpu = next((each for each in facts.gpus if each.index == index), None)
    return ", ".join(_describe(user, facts.clock) for user in gpu.processes) if gpu else ""


def _describe(user: GpuProcess, clock: float) -> str:
    words = [f"pid {user.pid}", f"of {user.user}" if user.user else "", user.command[:80]]
    age = clock - user.since if user.since else 0.0
    details = [f"{user.memory_mib} MiB", f"for {format_duration(age)}" if 0 < age < 1e9 else ""]
    return " ".join(filter(None, words)) + f" ({', '.join(filter(None, details))})"
