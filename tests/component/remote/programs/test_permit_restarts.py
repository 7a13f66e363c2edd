"""A host's Ray node may be restarted once the deployment was ready, and not once it was stopped."""

from __future__ import annotations

import pytest

from flagscale_deploy.remote.deployment import record, restart_permits
from tests.component.remote.living import Home


@pytest.mark.parametrize("stopped", [False, True])
def test_restarts_are_permitted_unless_the_run_was_stopped(home: Home, stopped: bool) -> None:
    home.record({}, boot_id=record.boot_id())
    if stopped:
        home.run("stop", grace=1)
    replies = home.run("permit_restarts", run_id="r1", scripts=["ray_worker.sh"])
    assert replies == [{"permitted": not stopped}]
    assert restart_permits.Files(home.state, "r1", "ray_worker.sh").permitted is not stopped
    assert not restart_permits.Files(home.state, "r1", "vllm_serve_m_0.sh").permitted
