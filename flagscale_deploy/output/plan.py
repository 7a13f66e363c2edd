"""Show a plan as a person reads it."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.output.console import Console
from flagscale_deploy.plan.model import InstancePlan, Plan
from flagscale_deploy.plan.server_change import Difference
from flagscale_deploy.plan.spares import lacks_spares
from flagscale_deploy.plan.versions import needed_vllm
from flagscale_deploy.support import shell
from flagscale_deploy.support.units import counted

NO_CHANGE = "Nothing would change."


def show_plan(console: Console, plan: Plan, show_scripts: bool, difference: Difference | None = None) -> None:
    """Show `plan`: what would change, servers, routers, gate, GPUs, steps and, if asked for, scripts."""
    console.print(f"deployment {plan.deployment}   digest {plan.digest[:19]}   run {plan.run_id}")
    if difference is not None:
        _show_difference(console, difference)
    if plan.ray.enabled:
        rows = [
            (
                node.host,
                node.role,
                node.node_ip,
                node.num_gpus,
                json.dumps(dict(node.resources)) if node.resources else "",
            )
            for node in plan.ray.nodes
        ]
        console.print()
        console.table(f"Ray cluster at {plan.ray.address}", ("HOST", "ROLE", "NODE IP", "GPUS", "RESOURCES"), rows)
    for instance in plan.instances:
        _show_instance(console, instance)
    for router in plan.routers:
        console.print("", f"{router.name} on {router.driver}   policy {router.policy}   endpoint {router.endpoint}")
        console.text(f"    {shell.join(router.argv)}")
    if plan.gate is not None:
        key = "with a key" if plan.gate.guarded else "without a key"
        console.print("", f"{plan.gate.name} on {plan.gate.driver}   {key}   endpoint {plan.gate.endpoint}")
        for name, urls in plan.gate.models.items():
            console.print(f"    {name} → {', '.join(urls)}")
    _show_restart(console, plan.restart)
    _show_gpus(console, plan)
    console.print()
    steps = [
        (number, stage.name, ", ".join(stage.after), step.host, step.script)
        for number, stage in enumerate(plan.stages, 1)
        for step in stage.steps
    ]
    console.table("Steps", ("", "STAGE", "AFTER", "HOST", "SCRIPT"), steps)
    if show_scripts:
        for host, scripts in plan.scripts.items():
            for name, text in scripts.items():
                console.print("", f"──── {host}: {name}")
                console.text(text.rstrip())


def _show_difference(console: Console, difference: Difference) -> None:
    """Show what would change about what runs."""
    lines, same = difference.lines, len(difference.servers) - len(difference.changed)
    console.print("", f"It runs now (run {difference.run_id}). " + ("What would change:" if lines else NO_CHANGE))
    for line in lines:
        console.text(f"    {line}")
    if lines and same:
        console.print(f"    {counted(same, 'server')} would go on as {'it is' if same == 1 else 'they are'}")
    if difference.unknown:
        console.print(f"    not compared, because an earlier version began it: {', '.join(difference.unknown)}")


def _show_restart(console: Console, restart: RestartSpec) -> None:
    """Show the restart policy, if one is set."""
    policies = []
    if restart.supervised:
        times = counted(restart.maximum, "time")
        policies.append(
            f"servers that die after they were ready: {times} in a row, after {restart.first:g} s"
            + (f" (x {restart.factor:g}, at most {restart.ceiling:g} s)" if restart.factor > 1 else "")
        )
        if restart.hang:
            policies.append(f"engines that have work and make no token for {restart.hang:g} s")
        if restart.notify:
            policies.append(f"then run: {restart.notify}")
    if restart.boot:
        policies.append("hosts that reboot: their part of the deployment")
    if policies:
        console.print("", f"restart   {'; '.join(policies)}")


def _show_gpus(console: Console, plan: Plan) -> None:
    """Show a map of hosts and GPUs: a letter for each instance, `x` for other users, a dot where free."""
    indexes = sorted({index for gpus in plan.gpus.values() for index in gpus})
    if not indexes:
        return
    letters = {instance.name: string.ascii_letters[at % 52] for at, instance in enumerate(plan.instances)}
    rows = [
        (name, *(("." if gpus[at] == "" else letters.get(gpus[at], "x")) if at in gpus else "" for at in indexes))
        for name, gpus in plan.gpus.items()
    ]
    console.print()
    console.table("GPUs", ("HOST", *map(str, indexes)), rows)
    legend = [f"{letter} {name}" for name, letter in letters.items()]
    others = sorted({who for gpus in plan.gpus.values() for who in gpus.values() if who and who not in letters})
    console.print(
        "   ".join([*legend, *(f"x {who}" for who in others), ". free" + (" to Ray" if plan.ray.enabled else "")])
    )


def _show_instance(console: Console, instance: InstancePlan) -> None:
    """Show an instance: its driver as it is started, and of each further rank what is different."""
    driver, *others = instance.ranks
    gpus = ", ".join(_gpus(host, indexes) for host, indexes in instance.gpus.items())
    where = f"{counted(len(instance.ranks), 'host')}, the driver on {driver.host}" if others else gpus
    console.print("", f"{instance.name} on {where}   executor {instance.executor}   endpoint {instance.endpoint}")
    if (need := needed_vllm(instance.ranks)) is not None:
        console.print(f"  needs vLLM {need.version} or later: {', '.join(f'--{flag}' for flag in need.flags)}")
    console.text(f"    {shell.join(driver.argv)}")
    for name, value in driver.env.items():
        console.text(f"    {name}={shell.quote(value)}")
    for rank in instance.ranks if others else ():
        console.print(f"  rank {rank.number}   {rank.role} on {_gpus(rank.host, rank.gpus)}")
        if rank is not driver:
            own = [word for word in rank.argv if word not in driver.argv]
            env = [f"{name}={shell.quote(value)}" for name, value in rank.env.items() if driver.env.get(name) != value]
            console.text(f"    {' '.join([shell.join(own), *env])}")
    for spare in instance.spares:
        console.print(f"  spare    for a rank whose host is lost, on {_gpus(spare.host, spare.gpus)}")
    if lacks_spares(instance):
        free = counted(len(others[0].gpus), "free GPU")
        console.print(f"  spare    none: no other host that it may run on has {free}")


def _gpus(host: str, indexes: Sequence[int]) -> str:
    return f"{host} [{','.join(map(str, indexes))}]" if indexes else f"{host} (no GPU)"
