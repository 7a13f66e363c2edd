"""Cleanup, run as a host runs it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.component.remote.living import SLEEP, Home, Household, messages, runs

MakeTemp = Callable[..., Path]


@pytest.fixture
def make_temp() -> Iterator[MakeTemp]:
    """Make directories as the launcher makes Ray's, with a claim for a deployment."""
    made = []

    def make(claim: str = "", **more: str) -> Path:
        path = Path(f"/tmp/fsd-{os.getuid()}-{uuid.uuid4().hex[:8]}")
        path.mkdir()
        made.append(path)
        if claim:
            (path / "flagscale-deploy.json").write_text(json.dumps({"deployment": claim, **more}))
        (path / "session_1").mkdir()
        (path / "session_1" / "x.log").write_bytes(b"x" * 1000)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


def test_all_that_a_deployment_left_goes_and_nothing_else(home: Home, make_temp: MakeTemp) -> None:
    recorded, earlier, other = make_temp(), make_temp(home.deployment), make_temp("another")
    elsewhere = make_temp(home.deployment, host="gpu02")
    home.record(ray_temp_dir=str(recorded))
    for name in ("before/secrets", "before.new", "runs"):
        (home.state / name).mkdir(parents=True)
    (answer,) = home.run("cleanup")
    assert answer["kept"] == []
    root = home.path / ".flagscale-deploy"
    expected = {recorded, earlier, home.state, home.state.parent, root}
    assert {Path(path) for path in answer["removed"]} == expected
    assert answer["bytes"] > 2000
    assert not any(path.exists() for path in expected)
    assert other.exists()
    assert elsewhere.exists()
    assert home.run("cleanup") == [{"removed": [], "bytes": 0, "kept": []}]


def test_an_empty_root_goes_where_there_never_was_a_state(home: Home) -> None:
    shutil.rmtree(home.state.parent, ignore_errors=True)
    root = home.path / ".flagscale-deploy"
    root.mkdir(exist_ok=True)
    (answer,) = home.run("cleanup")
    assert answer["removed"] == [str(root)]
    assert not root.exists()


def test_on_a_shared_home_other_hosts_keep_their_state(home: Home) -> None:
    home.record()
    other = home.state.parent / "gpu02"
    other.mkdir()
    (answer,) = home.run("cleanup")
    assert answer["removed"] == [str(home.state)]
    assert other.exists()


def test_nothing_goes_while_processes_of_it_live(people: Household, home: Home, make_temp: MakeTemp) -> None:
    (pid,) = people.python(SLEEP, f"{home.deployment}/r1")
    temp = make_temp(home.deployment)
    with home.open("cleanup") as program:
        (answer,) = messages(program.communicate(timeout=30)[0])
    assert program.returncode == 1
    assert str(pid) in answer["error"]
    assert runs(pid)
    assert temp.exists()
    assert home.state.exists()


def test_links_are_not_followed(home: Home, tmp_path: Path, make_temp: MakeTemp) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (home.state / "logs" / "link").symlink_to(precious)
    temp = make_temp(home.deployment)
    (temp / "link").symlink_to(precious)
    linked = Path(f"/tmp/fsd-{os.getuid()}-{uuid.uuid4().hex[:8]}")
    linked.symlink_to(temp)
    try:
        home.record(ray_temp_dir=str(linked))
        (answer,) = home.run("cleanup")
        assert linked.is_symlink()
    finally:
        linked.unlink()
    assert str(temp) in answer["removed"]
    assert (precious / "file").exists()


def test_a_state_directory_that_is_a_link_is_kept(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    home.state.rename(precious)
    home.state.symlink_to(precious)
    (answer,) = home.run("cleanup")
    assert answer["kept"] == [{"path": str(home.state), "why": "it is a link"}]
    assert precious.exists()


@pytest.mark.parametrize("owner", ["", "another"])
def test_a_recorded_directory_that_is_not_named_or_claimed_as_ours_is_kept(
    home: Home, make_temp: MakeTemp, tmp_path: Path, owner: str
) -> None:
    recorded = make_temp(owner) if owner else tmp_path / "ray"
    recorded.mkdir(exist_ok=True)
    home.record(ray_temp_dir=str(recorded))
    (answer,) = home.run("cleanup")
    assert [item["path"] for item in answer["kept"]] == [str(recorded)]
    assert recorded.exists()


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_name_that_would_lead_outside_is_refused(home: Home, name: str) -> None:
    with home.open("cleanup", deployment=name) as program:
        output = program.communicate(timeout=30)[0]
    assert program.returncode == 1
    assert b"cannot be used as a name" in output
    assert home.state.exists()
