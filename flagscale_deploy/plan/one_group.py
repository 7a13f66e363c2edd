"""Take from a plan what one of its groups needs, to start that into a deployment that runs."""

from __future__ import annotations

from dataclasses import replace

from flagscale_deploy.plan.model import Plan, Stage
from flagscale_deploy.plan.stages import SERVE

BOOT = "boot.sh"
"""What a host starts after a reboot: it has the scripts of all groups, whose names stay the same."""


def one_group(plan: Plan, name: str) -> Plan:
    """Return the plan of this group alone. Raises KeyError where the plan has none of that name.

    Its hosts get its own scripts and those that belong to no server; the scripts of others stay as they are.
    """
    instance = {instance.name: instance for instance in plan.instances}[name]
    own = {(rank.host, rank.script) for rank in instance.members}
    steps = [step for stage in plan.stages for step in stage.steps]
    others = {(step.host, step.script) for step in steps if step.role != "ray-nodes"} - own
    hosts = dict.fromkeys(rank.host for rank in instance.members)
    return replace(
        plan,
        instances=(instance,),
        routers=(),
        stages=(Stage(SERVE, tuple(step for step in steps if (step.host, step.script) in own)),),
        scripts={
            host: {
                script: text
                for script, text in plan.scripts[host].items()
                if (host, script) not in others and script != BOOT
            }
            for host in hosts
        },
    )
