"""What the record on a host says of a change, and of the groups that there are in the course of it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import record, restart_permits
from tests.component.remote.living import Home

CHANGE = {
    "run_id": "c1",
    "base": "r1",
    "groups": ["m/1"],
    "done": [],
    "secrets": False,
    "step": "stop",
    "operator": "me@here",
}
HERE: dict[str, Any] = {"boot_id": record.boot_id(), "machine": os.uname().nodename}


def group(name: str, gpus: list[int], host: str = "gpu01", **more: Any) -> dict[str, Any]:
    return {"name": name, "model": "m", "driver": host, "hosts": [host], "gpus": {host: gpus},
            "script": f"serve_{name[-1]}.sh", **more}  # fmt: skip


def deployed(home: Home) -> None:
    """Write the record of two groups, each with a GPU and a port."""
    home.record(
        instances=[group("m/0", [0]), group("m/1", [1], argv=["old"]), group("m/10", [2])],
        gpus=[0, 1, 2], ports={"m/0": 8000, "m/1": 8001, "m/1 master": 29500, "m/10": 8010, "ray": 6379}, **HERE,
    )  # fmt: skip


def change(home: Home, run_id: str = "r1", **wish: Any) -> dict[str, Any]:
    (reply,) = home.hear("change_record", run_id=run_id, **wish)
    return reply


def part(*gpus: int, port: int = 1, **more: Any) -> dict[str, Any]:
    joining = group("m/1", [*gpus], argv=["new"], **more)
    return {"instances": [joining], "roles": ["engine"], "gpus": [*gpus], "ports": {"m/1": port}}


def test_a_change_is_noted_with_its_time_until_it_is_over(home: Home) -> None:
    deployed(home)
    change(home, change=CHANGE)
    noted = home.read_record()["change"]
    assert {key: noted[key] for key in CHANGE} == CHANGE
    assert noted["at"] > 1.7e9
    before = {key: value for key, value in home.read_record().items() if key != "change"}
    change(home, change=None)
    assert home.read_record() == before


def test_a_group_takes_the_place_of_the_one_of_its_name_with_its_gpus_and_ports(home: Home) -> None:
    deployed(home)
    permits = restart_permits.Files(home.state, "r1", "serve_1.sh")
    permits.forbid()
    assert change(home, join=part(3, 4), exclusive=["gpus", "ports"], scripts=["serve_1.sh"]) == {"taken": []}
    written = home.read_record()
    assert [server["name"] for server in written["instances"]] == ["m/0", "m/1", "m/10"]
    assert written["instances"][1]["argv"] == ["new"]
    assert written["gpus"] == [0, 2, 3, 4]
    assert written["ports"] == {"m/0": 8000, "m/1": 1, "m/10": 8010, "ray": 6379}
    assert not permits.forbidden


def test_a_new_group_comes_last_and_one_on_another_host_takes_nothing_here(home: Home) -> None:
    deployed(home)
    change(home, drop=["m/1"])
    assert home.read_record()["gpus"] == [0, 2]
    assert home.read_record()["ports"] == {"m/0": 8000, "m/10": 8010, "ray": 6379}
    elsewhere = {**part(), "instances": [group("m/1", [7], host="gpu02")], "ports": {}}
    change(home, join=elsewhere)
    assert [server["name"] for server in home.read_record()["instances"]] == ["m/0", "m/10", "m/1"]
    assert home.read_record()["gpus"] == [0, 2]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["m/router", "gate"], ["engine", "router", "gate"]),
        (["m/router"], ["engine", "router"]),
        (["gate"], ["engine", "gate"]),
        ([], ["engine"]),
    ],
)
def test_a_router_or_gate_that_goes_is_no_role_of_its_host_any_more(
    home: Home, names: list[str], roles: list[str]
) -> None:
    home.record(**HERE)
    (home.state / "record.json").write_text(json.dumps({**home.read_record(), "roles": ["engine", "router", "gate"]}))
    fronts = [{"name": name, "driver": "gpu01"} for name in names]
    change(home, common={"routers": [*fronts, {"name": "n/router", "driver": "gpu02"}]})
    assert home.read_record()["roles"] == roles


def test_what_another_deployment_has_is_not_taken_and_nothing_is_changed(home: Home) -> None:
    deployed(home)
    neighbour = Home(home.path, f"{home.deployment}-neighbour")
    neighbour.record(gpus=[5], ports={}, operator="eve@desk", **HERE)
    before = home.read_record()
    (taken,) = change(home, join=part(5), exclusive=["gpus", "ports"], scripts=[])["taken"]
    assert (taken["what"], "eve@desk" in taken["by"]) == ("GPU 5", True)
    assert home.read_record() == before


@pytest.mark.parametrize("stopped", [True, False], ids=["it was stopped", "another run took the place"])
def test_only_the_run_that_is_changed_is(home: Home, stopped: bool) -> None:
    home.record({}, stopped_at=1.0 if stopped else 0.0)
    home.stderr = os.open(os.devnull, os.O_WRONLY)
    with home.open("change_record", run_id="r1" if stopped else "r2", change=CHANGE) as program:
        program.communicate(timeout=60)
    assert program.returncode != 0
    assert "change" not in home.read_record()


def test_stop_ends_a_change(home: Home) -> None:
    deployed(home)
    change(home, change=CHANGE)
    home.run("stop", run_id=None, grace=1.0)
    assert "change" not in home.read_record()
    assert home.read_record()["stopped_at"] > 1.7e9
