"""Whether everything has a place."""

from __future__ import annotations

from collections.abc import Iterator

from flagscale_deploy.checks.ground import counted, from_planner, no_spec, passed
from flagscale_deploy.checks.model import Check, Finding, Scene


def placement(scene: Scene) -> Iterator[Finding]:
    """Whether every replica finds its GPUs, hosts and ports; GPUs that are only busy are told by gpu-busy."""
    yield from from_planner(scene, "placement")
    if scene.plan:
        words = f"{counted(len(scene.plan.instances), 'instance')} on {counted(len(scene.plan.hosts), 'host')}"
        yield passed(words)


def _unplanned(scene: Scene) -> str:
    if why := no_spec(scene):
        return why
    told = scene.plan is not None or any(fault.check == "placement" for fault in scene.faults)
    return "" if told else "there is no plan to look at"


PLACEMENT = (Check("placement", "placement", placement, "room for every replica", _unplanned, skippable=False),)
