"""Nothing of a run starts any more once it has been stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import record, restart_permits
from flagscale_deploy.remote.programs import launch
from tests.component.remote.living import Home, runs

SCRIPT = "echo $$ > ~/started; exec sleep 60"


def launching(home: Home, **changed: Any) -> Any:
    args = {"deployment": home.deployment, "host": home.host, "run_id": "r1", "session": "0" * 8, "timeout": 20}
    args |= {"script": "engine.sh", "role": "engine", "detached": True, "record": {}}
    return args | {"files": {"scripts/engine.sh": (SCRIPT, "700")}} | changed


def test_a_launch_that_comes_after_a_stop_starts_nothing(home: Home) -> None:
    """The operator was interrupted, and another connection was slower than the one that stopped."""
    home.record({}, boot_id=record.boot_id())
    home.run("stop", grace=1)
    with home.open("launch", **launching(home)) as program:
        output = program.communicate(timeout=30)[0]
    assert (program.returncode, b"run r1 of %s was stopped" % home.deployment.encode() in output) == (1, True)
    assert not (home.path / "started").exists()
    assert "stopped_at" in home.read_record()


def test_a_stop_that_comes_while_a_script_is_being_started_ends_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forbids before it looks: what it cannot see yet sees that it is forbidden."""
    monkeypatch.setenv("HOME", str(home.path))
    home.record({}, boot_id=record.boot_id())
    (home.state / "scripts" / "engine.sh").write_text(SCRIPT)
    monkeypatch.setattr(launch, "input_ended", lambda: False)
    restart_permits.forbid(home.deployment, home.host, ["r1"])
    with pytest.raises(RuntimeError, match="was stopped"):
        launch.run(Path(home.state), launching(home))
    time.sleep(0.1)
    (process,) = home.read_record()["processes"]
    assert not runs(process["pid"])


def test_what_a_script_starts_carries_its_name_beside_the_mark_and_a_group_that_was_stopped_is_not_launched(
    home: Home,
) -> None:
    home.record({}, boot_id=record.boot_id())
    home.hear("launch", **launching(home))
    (process,) = home.read_record()["processes"]
    environ = Path(f"/proc/{process['pid']}/environ").read_bytes().split(b"\0")
    assert b"FLAGSCALE_DEPLOY_SCRIPT=engine.sh" in environ
    (ended,) = home.run("stop_group", run_id="r1", scripts=["engine.sh"], grace=5.0)
    assert (ended["ended"], runs(process["pid"])) == (1, False)
    with home.open("launch", **launching(home)) as program:
        output = program.communicate(timeout=30)[0]
    assert (program.returncode, b"was stopped" in output) == (1, True)
    assert home.read_record()["processes"] == []


SUPERVISED = """
cat > "$(dirname "$0")/../restart/r1/ray_head.json" <<END
{"state": "running", "healthy": true, "boot_id": "%s"}
END
exec sleep 60
"""


def test_a_script_that_has_become_a_supervisor_is_done_when_its_server_is_up(home: Home) -> None:
    """A Ray node's: `ray start` has ended well by then."""
    home.record({}, boot_id=record.boot_id())
    (home.state / "restart/r1").mkdir(parents=True)
    files = {"scripts/ray_head.sh": (SUPERVISED % record.boot_id(), "700")}
    args = launching(home, script="ray_head.sh", role="ray-head", detached=False, files=files)
    started, ended = home.hear("launch", **args)
    assert ended["exit_code"] is None
    assert runs(started["pid"])
    assert home.run("stop", run_id=None, grace=1)[-1]["survivors"] == []


def test_what_a_supervisor_said_before_a_reboot_counts_for_nothing(home: Home) -> None:
    home.record({}, boot_id=record.boot_id())
    (home.state / "restart/r1").mkdir(parents=True)
    files = {"scripts/ray_head.sh": (SUPERVISED.replace("60", "0.5") % "an earlier boot", "700")}
    args = launching(home, script="ray_head.sh", role="ray-head", detached=False, files=files)
    assert home.hear("launch", **args)[-1]["exit_code"] == 0
