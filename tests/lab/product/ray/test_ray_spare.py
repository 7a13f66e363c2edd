"""Real Ray over three hosts, of which an instance needs two: it serves on when one stays lost.

FSD_FAULTS=all runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given

Write = Callable[..., Serve]
DEPLOY = {
    "ray": {"mode": "on", "dashboard": False},
    "restart": {"policy": "on-failure", "backoff": 0.1, "max": 20, "lost": 20, "spare": True},
    "timeouts": {"connect": 4, "stop": 2, "ray": 120},
}

RUN_SECONDS = 400.0
"""Three nodes of Ray start one after the other where the cores are busy: 34 s at load 10."""


def test_an_instance_over_ray_serves_again_without_a_host_that_stays_lost(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="ray,actors", flags={"tensor-parallel-size": 2}, deploy=DEPLOY)
    operator.start("run", "-c", served.config).end(0, within=RUN_SECONDS)
    head, lost = lab.hosts[0], lab.hosts[1]

    def status() -> Any:
        return operator("status", "--name", served.name, "--json", exits=None).json

    before = given(head, served.port)["pid"]
    lost.cut()
    try:
        assert eventually(lambda: given(head, served.port)["pid"] != before, within=240, every=1.0)
        assert eventually(lambda: status()["instances"][0]["state"] == "ready", within=60, every=2.0)
        without = status()
        assert without["instances"][0]["restarts"] == 1
        assert lost.address in str(without["ray"]["missing"])
    finally:
        lost.join()
    assert eventually(lambda: status()["state"] == "ready", within=240, every=3.0), status()
    processes = lab.processes(served.name)
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
