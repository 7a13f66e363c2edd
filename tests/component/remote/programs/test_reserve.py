"""What a run takes on a host before it starts anything, and what it finds taken."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import record
from tests.component.remote.living import SLEEP, Home, Household

GATE = f"@reserve-{os.uname().nodename}"


def reserve(home: Home, run_id: str = "r2", **changed: Any) -> list[dict[str, str]]:
    (answer,) = home.hear("reserve", **asking(home, run_id, **changed))
    return list(answer["taken"])


def heard(program: subprocess.Popen[bytes]) -> bytes:
    """Return all that a program sends while the operator listens."""
    assert program.stdout is not None
    return program.stdout.read()


def asking(home: Home, run_id: str, **changed: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"deployment": home.deployment, "host": home.host, "operator": "bob@ops", "gpus": [0, 1]}
    wanted |= {"ports": {"m/0": changed.pop("port", 1)}, "head": changed.pop("head", home.host)}
    return {"run_id": run_id, "record": wanted, "exclusive": ["gpus", "ports"], **changed}


def neighbour(home: Home, host: str = "gpu01", **more: Any) -> Home:
    """Another deployment in the same home, of a run that goes on."""
    other = Home(home.path, f"{home.deployment}-neighbour", host)
    fields = {"boot_id": record.boot_id(), "machine": os.uname().nodename, "operator": "eve@desk", **more}
    other.record(**fields)
    return other


def test_what_nobody_has_is_taken_and_recorded(home: Home) -> None:
    assert reserve(home) == []
    written = home.read_record()
    assert (written["run_id"], written["gpus"], written["processes"]) == ("r2", [0, 1], [])
    assert (written["boot_id"], written["machine"]) == (record.boot_id(), os.uname().nodename)
    assert not (home.path / ".flagscale-deploy" / GATE).exists()


def test_what_another_deployment_recorded_is_its_own_also_before_it_has_started(home: Home) -> None:
    neighbour(home, gpus=[1, 2], ports={"ray": 6379})
    (first, second) = reserve(home, port=6379)
    assert (first["what"], second["what"]) == ("GPU 1", "port 6379")
    assert f"deployment {home.deployment}-neighbour (run r1 of eve@desk" in first["by"]
    assert not (home.state / "record.json").exists()
    assert reserve(home, port=6379, exclusive=[]) == []


@pytest.mark.parametrize("over", [{"stopped_at": 1.0}, {"boot_id": "another"}])
def test_a_run_that_is_over_holds_nothing(home: Home, over: dict[str, Any]) -> None:
    neighbour(home, gpus=[0], **over)
    assert reserve(home) == []


def test_a_machine_that_another_inventory_calls_otherwise_is_the_same(home: Home) -> None:
    neighbour(home, host="10.0.0.1", gpus=[0])
    assert [conflict["what"] for conflict in reserve(home)] == ["GPU 0"]


def test_another_machine_that_shares_the_home_is_not(home: Home) -> None:
    neighbour(home, host="gpu02", gpus=[0], machine="gpu02")
    assert reserve(home) == []


def test_a_port_on_which_somebody_listens_by_now_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (taken,) = reserve(home, port=port)
    assert taken["what"] == f"port {port}"
    assert f"(pid {os.getpid()})" in taken["by"]


def test_a_run_of_the_deployment_that_lives_here_keeps_its_place(home: Home, people: Household) -> None:
    (pid,) = people.python(SLEEP, f"{home.deployment}/r1")
    home.record({"engine": pid}, boot_id=record.boot_id())
    (taken,) = reserve(home)
    assert taken["what"] == f"deployment {home.deployment}"
    assert home.read_record()["run_id"] == "r1"


def test_a_run_of_the_same_name_with_another_head_that_is_to_start_has_the_name(home: Home) -> None:
    """Runs with the same head have the same lock, so that what one of them left is nobody's."""
    before = home.record(boot_id=record.boot_id(), head="gpu02", operator="eve@desk")
    (taken,) = reserve(home)
    assert taken == {"what": f"the name {home.deployment}", "by": taken["by"]}
    assert "run r1 of eve@desk" in taken["by"]
    assert reserve(home, look=True, exclusive=[]) == [taken]
    assert home.read_record() == before
    assert reserve(home, head="gpu02", look=True) == []
    assert home.read_record() == before
    assert reserve(home, head="gpu02") == []
    assert home.read_record()["run_id"] == "r2"


def test_a_look_at_a_host_without_records_leaves_nothing_there(home: Home, tmp_path: Path) -> None:
    fresh = Home(tmp_path / "fresh", home.deployment)
    before = sorted(fresh.path.rglob("*"))
    assert reserve(fresh, look=True) == []
    assert sorted(fresh.path.rglob("*")) == before


def test_a_release_leaves_the_host_as_it_was(home: Home, tmp_path: Path) -> None:
    before = home.record(stopped_at=1.0, gpus=[7])
    reserve(home)
    home.run("reserve", run_id="another", release=True)
    assert home.read_record()["run_id"] == "r2"
    home.run("reserve", run_id="r2", release=True)
    assert home.read_record() == before

    fresh = Home(tmp_path / "fresh", home.deployment)
    for name in ("scripts", "logs", "secrets"):
        (fresh.state / name).rmdir()
    fresh.state.rmdir()
    reserve(fresh)
    fresh.run("reserve", run_id="r2", release=True)
    assert not fresh.state.exists()


def test_of_many_that_come_at_once_one_gets_it(tmp_path: Path) -> None:
    """Different deployments, the same GPUs, planned from the same look at the host."""
    homes = [Home(tmp_path, f"race-{at}") for at in range(6)]
    started: list[subprocess.Popen[bytes]] = [home.open("reserve", **asking(home, "r2")) for home in homes]
    outputs = [heard(program) for program in started]
    for program in started:
        program.communicate(timeout=60)
    assert sum(b'"taken": []' in message for message in outputs) == 1
    assert sum(b"GPU 0" in message for message in outputs) == 5
    assert not (tmp_path / ".flagscale-deploy" / GATE).exists()


def test_nothing_is_taken_for_an_operator_who_has_gone_while_it_waited(home: Home) -> None:
    """Their release may have been here before."""
    gate = home.path / ".flagscale-deploy" / GATE
    with gate.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        program = home.open("reserve", **asking(home, "r2"))
        time.sleep(0.3)
        assert program.stdin is not None
        program.stdin.close()
        program.stdin = None
    assert program.communicate(timeout=60)[0] == b""
    assert program.returncode == 0
    assert not (home.state / "record.json").exists()
    assert not gate.exists()


def test_a_run_that_has_lost_its_place_starts_nothing(home: Home) -> None:
    reserve(home, "r1")
    reserve(home, "r2")
    args: dict[str, Any] = {"record": {}, "files": {}, "script": None, "role": "engine", "detached": True}
    with home.open("launch", run_id="r1", timeout=5, session="0" * 8, **args) as program:
        outputs = program.communicate(timeout=30)[0]
    assert program.returncode == 1
    assert f"run r2 of {home.deployment} has replaced this run".encode() in outputs


@pytest.mark.parametrize(("roles", "taken"), [([], []), (["engine"], ["the name"])])
def test_the_record_of_a_head_without_a_part_reserves_nothing(home: Home, roles: list[str], taken: list[str]) -> None:
    home.record(boot_id=record.boot_id(), machine=os.uname().nodename, head="gpu01", gpus=[], ports={})
    (home.state / "record.json").write_text(json.dumps({**home.read_record(), "roles": roles}))
    assert [conflict["what"].rpartition(" ")[0] for conflict in reserve(home, "r2", head="gpu09")] == taken
