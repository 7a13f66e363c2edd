"""What a host starts again after a reboot: a script that ends, and one that becomes the supervisor of a Ray node."""

from __future__ import annotations

import os
import subprocess

import pytest

from flagscale_deploy.remote.deployment import record, restart_permits
from flagscale_deploy.remote.supervisor.boot import STOPPED
from flagscale_deploy.remote.system import files
from flagscale_deploy.transport.bundle import library
from tests.component.remote.living import HOST_PYTHON, Home, runs

UP = """
mkdir -p "$(dirname "$0")/../restart/r1"
cat > "$(dirname "$0")/../restart/r1/ray_head.json" <<END
{"state": "running", "healthy": true, "boot_id": "%s"}
END
exec sleep 60
"""


def boot(home: Home, script: str, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    (home.state / "scripts/ray_head.sh").write_text(script)
    for name, text in library("boot").items():
        files.make_private_directory((home.state / "supervisor" / name).parent)
        (home.state / "supervisor" / name).write_text(text)
    words = [f"--deployment={home.deployment}", f"--host={home.host}", "--run=r1", f"--session={'0' * 8}",
             "--script=ray_head.sh", "--role=ray-head", f"--timeout={timeout}"]  # fmt: skip
    return subprocess.run([HOST_PYTHON, home.state / "supervisor", "boot", *words], timeout=55, check=False,
                          env={**os.environ, "HOME": str(home.path)}, capture_output=True)  # fmt: skip


@pytest.mark.parametrize(
    ("script", "timeout", "status", "is_left"),
    [
        ("exit 0", 60.0, 0, False),
        ("exit 3", 60.0, 3, False),
        (UP % record.boot_id(), 60.0, 0, True),
        (UP % "an earlier boot", 0.5, 1, False),
    ],
    ids=["ends", "fails", "its node is up", "hangs"],
)
def test_a_script_is_done_when_it_ends_or_its_ray_node_is_up(
    home: Home, script: str, timeout: float, status: int, is_left: bool
) -> None:
    home.record({}, boot_id=record.boot_id())
    ended = boot(home, script, timeout)
    assert ended.returncode == status, ended.stderr
    (process,) = home.read_record()["processes"]
    assert runs(process["pid"]) is is_left
    home.run("stop", run_id=None, grace=1)


@pytest.mark.parametrize(("run", "status"), [(False, 0), (True, STOPPED)], ids=["its group", "the run"])
def test_what_was_stopped_is_not_started_and_a_group_that_is_changed_keeps_nothing_else_down(
    home: Home, run: bool, status: int
) -> None:
    home.record({}, boot_id=record.boot_id())
    restart_permits.Files(home.state, "r1", "ray_head.sh").forbid()
    if run:
        (home.state / "restart/r1/stop").touch()
    assert boot(home, "exit 7").returncode == status
    assert home.read_record()["processes"] == []
