"""What is on the hosts beside what is to come: other deployments, locks, crashed runs, other people's Ray."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import no_answer, no_spec, on
from flagscale_deploy.checks.gpu_users import busy_with
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.claims import current, others


def other_deployments(scene: Scene) -> Iterator[Finding]:
    """Whether other deployments of ours run on the hosts: they share memory, disks and network."""
    own = scene.spec.name if scene.spec else ""
    for name, facts in scene.facts.items():
        records = dict.fromkeys(str(record.get("deployment")) for record in others(facts, own))
        found = [each for each in records if each not in busy_with(scene, name)]
        if found and scene.spec is not None:
            yield Finding(
                name,
                f"{', '.join(found)} runs there",
                "this deployment alone",
                "; ".join(again(scene.inventory, "stop", each) for each in found),
                "warning",
            )


def lock(scene: Scene) -> Iterator[Finding]:
    """Whether somebody else is at work on this deployment: `run` would wait, and then refuse."""
    for name, facts in scene.facts.items():
        for held in facts.locks:
            if scene.spec is not None and held.deployment == scene.spec.name:
                who, what = (str(held.holder.get(key) or "") for key in ("who", "what"))
                yield Finding(
                    name,
                    f"{who or 'somebody'} is at it with {what or 'a command'} (pid {held.pid})",
                    "nobody else at work on it",
                    f"wait for it; if it is gone: {again(scene.inventory, 'unlock', held.deployment)}",
                    "warning",
                )


def crashed_runs(scene: Scene) -> Iterator[Finding]:
    """Whether processes of ours are left of runs that no record knows: they hold GPUs, memory and ports."""
    for name, facts in scene.facts.items():
        known = {f"{record.get('deployment')}/{record.get('run_id')}" for record in current(facts)}
        locked = {held.deployment for held in facts.locks}
        for run, count in facts.runs.items():
            deployment = run.partition("/")[0]
            if run not in known and deployment not in locked | busy_with(scene, name):
                yield Finding(
                    name,
                    f"{count} {'process' if count == 1 else 'processes'} of {run}",
                    "none that no record knows",
                    again(scene.inventory, "cleanup", deployment),
                    "warning",
                )


def foreign_ray(scene: Scene) -> Iterator[Finding]:
    """Whether a Ray cluster that is not ours runs on the hosts: it counts the same GPUs, and its ports are taken."""
    for name, facts in scene.facts.items():
        if facts.foreign_ray:
            who = ", ".join(
                f"{_program(each.command)} (pid {each.pid}{f' of {each.user}' if each.user else ''})"
                for each in facts.foreign_ray
            )
            mine = all(each.user in ("", facts.user) for each in facts.foreign_ray)
            pids = [str(each.pid) for each in facts.foreign_ray]
            yield Finding(
                name,
                f"another Ray: {who}",
                "none but ours",
                f"if nobody needs it: {on(scene, name, 'kill', *pids, root=not mine)}",
                "warning",
            )


def _program(command: str) -> str:
    return command.partition(" ")[0].rpartition("/")[2][:40] or "a process"


LEFTOVERS = (
    Check("other-deployments", "left over", other_deployments, "none", no_spec, "warning"),
    Check("lock", "left over", lock, "nobody holds it", no_spec, "warning"),
    Check("crashed-runs", "left over", crashed_runs, "none", no_answer, "warning"),
    Check("foreign-ray", "left over", foreign_ray, "none", no_answer, "warning"),
)
