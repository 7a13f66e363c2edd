"""A worker's host is lost while the engine loads on another one: it is connected to again, or lost after 30 s.

`FSD_FAULTS=all` also cuts its cable, which takes 40 s to be noticed, and reboots it.
"""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from flagscale_deploy.deploy.watchdog import LOST_SECONDS
from tests.lab.faults.faults import cut, drop_connections, join, lose_power, power_on, reboot
from tests.lab.faults.scene import STATE, Scene
from tests.lab.faults.stages import loading

ALL = os.environ.get("FSD_FAULTS") == "all"
LOSSES = {
    "power": (lose_power, power_on, 3, rf"node2: .*not back after {LOST_SECONDS:g} s"),
    "cable": (cut, join, 3, rf"node2: .*not back after {LOST_SECONDS:g} s"),
    "reboot": (reboot, lambda _scene: None, 5, r"node2: processes ended while its connection was lost: 1 × raylet"),
}
"""What happens to the host, what undoes it, the exit status, and what is said."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("loss", LOSSES if ALL else ["power"])
def test_a_workers_host_is_connected_to_again_or_lost_after_30_seconds(scene: Scene, loss: str) -> None:
    lose, undo, code, cause = LOSSES[loss]
    loading(scene)
    scene.at = 1
    drop_connections(scene)
    scene.running.wait_for("[node2] serve: the connection is back")

    began = time.monotonic()
    lose(scene)
    try:
        ended = scene.running.end(code)
        took = time.monotonic() - began
        assert re.search(cause, ended.err), ended.err
        assert took > LOST_SECONDS or code == 5
        assert took < 5 * LOST_SECONDS
        assert scene.processes(scene.lab.hosts[0]) == [], "the others are stopped"
        record = json.loads(scene.lab.hosts[0].run(f"cat {STATE}/node1/record.json").stdout)
        assert re.search(cause, record["failure"]["cause"])
    finally:
        undo(scene)
