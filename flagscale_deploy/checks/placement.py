"""Check that every replica can be placed."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import from_planner, passed, unplanned
from flagscale_deploy.checks.types import Check, Context, Finding
from flagscale_deploy.support.units import counted


def placement(context: Context) -> Iterator[Finding]:
    """Check that every replica gets GPUs, hosts and ports; GPUs that are only busy are reported by gpu-busy."""
    yield from from_planner(context, "placement")
    if context.plan:
        words = f"{counted(len(context.plan.instances), 'instance')} on {counted(len(context.plan.working), 'host')}"
        yield passed(words)


PLACEMENT = (
    Check("placement", "placement", placement, "room for every replica", unplanned("placement"), skippable=False),
)
