"""Check for other users of the hosts: other deployments, locks, crashed runs, foreign Ray clusters."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import no_facts, no_spec, on
from flagscale_deploy.checks.gpu_users import busy_with
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.inventory.command_line import again
from flagscale_deploy.plan.claims import current, others


def other_deployments(context: Context) -> Iterator[Finding]:
    """Check that no other deployment runs on the hosts: they share memory, disks and network."""
    own = context.spec.name if context.spec else ""
    for name, facts in context.facts.items():
        records = dict.fromkeys(str(record.get("deployment")) for record in others(facts, own))
        running = [deployment for deployment in records if deployment not in busy_with(context, name)]
        if running and context.spec is not None:
            yield Finding(
                name,
                f"{', '.join(running)} {'runs' if len(running) == 1 else 'run'} on this host",
                "no other deployment",
                "it may stay; whose it is: "
                + "; ".join(again(context.inventory, "status", deployment) for deployment in running),
                "warning",
            )


def lock(context: Context) -> Iterator[Finding]:
    """Check that no other command works on this deployment: `run` would wait, and then refuse."""
    for name, facts in context.facts.items():
        for held in facts.locks:
            if context.spec is not None and held.deployment == context.spec.name:
                who, what = (str(held.holder.get(key) or "") for key in ("who", "what"))
                yield Finding(
                    name,
                    f"{who or 'another operator'} works on it with {what or 'a command'} (pid {held.pid})",
                    "no other command",
                    f"wait for its end; if its operator is gone: {again(context.inventory, 'unlock', held.deployment)}",
                    "warning",
                )


def crashed_runs(context: Context) -> Iterator[Finding]:
    """Check that no processes of unrecorded runs are left: they hold GPUs, memory and ports."""
    for name, facts in context.facts.items():
        recorded = {f"{record.get('deployment')}/{record.get('run_id')}" for record in current(facts)}
        locked = {held.deployment for held in facts.locks}
        for run, count in facts.runs.items():
            deployment = run.partition("/")[0]
            if run not in recorded and deployment not in locked | busy_with(context, name):
                own = context.spec is not None and deployment == context.spec.name
                look = f"whose they are: {again(context.inventory, 'status', deployment)}"
                yield Finding(
                    name,
                    f"{count} {'process' if count == 1 else 'processes'} of {run}",
                    "no processes of unrecorded runs",
                    again(context.inventory, "cleanup", deployment) if own else look,
                    "warning",
                )


def foreign_ray(context: Context) -> Iterator[Finding]:
    """Check that no other Ray cluster runs on the hosts: it counts the same GPUs, and its ports are taken."""
    for name, facts in context.facts.items():
        if facts.foreign_ray:
            who = ", ".join(
                f"{_program(process.command)} (pid {process.pid}{f' of {process.user}' if process.user else ''})"
                for process in facts.foreign_ray
            )
            pids = ",".join(str(process.pid) for process in facts.foreign_ray)
            yield Finding(
                name,
                f"another Ray cluster: {who}",
                "no other Ray cluster",
                f"it may stay if its ports are others; what it is: {on(context, name, 'ps', '-fp', pids)}",
                "warning",
            )


def _program(command: str) -> str:
    return command.partition(" ")[0].rpartition("/")[2][:40] or "a process"


LEFTOVERS = (
    Check("other-deployments", "left over", other_deployments, "none", no_spec, "warning"),
    Check("lock", "left over", lock, "not held", no_spec, "warning"),
    Check("crashed-runs", "left over", crashed_runs, "none", no_facts, "warning"),
    Check("foreign-ray", "left over", foreign_ray, "none", no_facts, "warning"),
)
