"""Take from a plan what one of its groups needs, to start that into a deployment that runs."""

from __future__ import annotations

from dataclasses import replace

from flagscale_deploy.plan.model import Plan, Stage
from flagscale_deploy.plan.stages import SERVE

SHARED = ("ray_nodes.sh", "notify.sh")
"""Scripts that a group's supervisor calls."""


def one_group(plan: Plan, name: str) -> Plan:
    """Return the plan of this group alone. Raises KeyError where the plan has none of that name.

    Its hosts get its own scripts and those that its supervisor calls; all others stay as they are.
    """
    instance = {instance.name: instance for instance in plan.instances}[name]
    own = {(rank.host, rank.script) for rank in instance.members}
    steps = [step for stage in plan.stages for step in stage.steps if (step.host, step.script) in own]
    hosts = dict.fromkeys(rank.host for rank in instance.members)
    return replace(
        plan,
        instances=(instance,),
        routers=(),
        gate=None,
        stages=(Stage(SERVE, tuple(steps)),),
        scripts={
            host: {
                script: text for script, text in plan.scripts[host].items() if (host, script) in own or script in SHARED
            }
            for host in hosts
        },
    )
