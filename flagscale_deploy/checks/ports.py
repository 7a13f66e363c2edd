"""Ports that are wanted and taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from flagscale_deploy.checks.ground import from_planner, on, passed, unplanned
from flagscale_deploy.checks.model import Check, Finding, Scene


def ports(scene: Scene) -> Iterator[Finding]:
    """Whether the ports that the configuration names are free where they are needed: engines, router, Ray."""
    for each in from_planner(scene, "ports"):
        port = re.search(r"port (\d+)", each.found)
        if each.host in scene.facts and port and " in use by " in each.found:
            look = on(scene, each.host, f"ss -ltnp sport = :{port[1]}")
            yield replace(each, expected="a free port", remedy=f"{each.remedy}: {look}")
        else:
            yield replace(each, expected="a free port")
    if scene.plan:
        wanted = [
            *(each.port for each in scene.plan.instances if each.port),
            *(each.port for each in scene.plan.routers),
        ]
        wanted += [scene.plan.ray.port] if scene.plan.ray.enabled else []
        yield passed(f"{', '.join(map(str, dict.fromkeys(wanted)))} are free" if wanted else "none is needed")


PORTS = (Check("ports", "ports", ports, "free on the hosts that need them", unplanned("ports")),)
