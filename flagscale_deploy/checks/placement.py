"""Check that every replica can be placed."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.conditions import from_planner, passed, unplanned
from flagscale_deploy.checks.model import Check, Finding, Scene
from flagscale_deploy.support.units import counted


def placement(scene: Scene) -> Iterator[Finding]:
    """Check that every replica gets GPUs, hosts and ports; GPUs that are only busy are reported by gpu-busy."""
    yield from from_planner(scene, "placement")
    if scene.plan:
        words = f"{counted(len(scene.plan.instances), 'instance')} on {counted(len(scene.plan.working), 'host')}"
        yield passed(words)


PLACEMENT = (
    Check("placement", "placement", placement, "room for every replica", unplanned("placement"), skippable=False),
)
