"""A change's files, what they were before it, and its end, as a host carries them out."""

from __future__ import annotations

import os
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import before_change, kept, record
from tests.component.remote.living import Home, messages
from tests.component.remote.programs.test_change_record import CHANGE, change, deployed, group, part
from tests.component.remote.programs.test_history import told
from tests.component.remote.programs.test_launch import launching

EVENT = {"event": "updated", "run_id": "c1", "by": "me@here", "reason": "m/0: --max-model-len 1 → 2", "took": 12.5}
NEXT = {"scripts/serve_0.sh": ("new", "700"), "secrets/env": ("A=2", "600"), kept.path_of("c1"): ("{}", "600")}


def begun(home: Home) -> None:
    """Begin a change of a deployment, and write its files."""
    deployed(home)
    for name, text in {"scripts/serve_0.sh": "old", "secrets/env": "A=1"}.items():
        (home.state / name).write_text(text)
    change(home, before="keep", change=CHANGE, files=NEXT)


def refused(home: Home, run_id: str = "r1", **wish: Any) -> str:
    """Return why a change is not carried out."""
    home.stderr = os.open(os.devnull, os.O_WRONLY)
    with home.open("change_record", run_id=run_id, **wish) as program:
        assert program.stdout is not None
        (reply,) = messages(program.stdout.read())
    return str(reply["error"])


def test_an_update_leaves_its_files_its_configuration_and_one_event(home: Home) -> None:
    begun(home)
    assert (home.state / "scripts/serve_0.sh").read_text() == "new"
    common = {"configuration": "c1", "digest": "d2", "secrets": ["A"], "instances": [group("m/0", [3])]}
    for _ in range(2):
        change(home, before="forget", change=None, common=common, event=EVENT)
    written = home.read_record()
    assert {key: written[key] for key in common} == common
    assert (written["gpus"], "change" in written, written["run_id"]) == ([3], False, "r1")
    assert not (home.state / before_change.FOLDER).exists()
    (noted,) = told(home)
    assert {key: noted[key] for key in EVENT} == EVENT
    change(home, event={**EVENT, "run_id": "c2", "reason": "x" * 99_999})
    assert len(told(home)[1]["reason"]) == 2000


def test_what_ran_before_comes_back_where_a_change_fails(home: Home) -> None:
    begun(home)
    change(home, before="restore", scripts=["serve_0.sh"])
    assert (home.state / "scripts/serve_0.sh").read_text() == "old"
    assert (home.state / "secrets/env").read_text() == "A=1"
    change(home, before="forget", change=None, event={**EVENT, "event": "put back"})
    assert "was not kept" in refused(home, before="restore", scripts=["serve_0.sh"])


def test_where_something_is_taken_no_file_is_touched(home: Home) -> None:
    begun(home)
    neighbour = Home(home.path, f"{home.deployment}-neighbour")
    neighbour.record(gpus=[5], ports={}, boot_id=record.boot_id(), machine=os.uname().nodename)
    before = home.read_record()
    wish: dict[str, Any] = {"before": "restore", "files": {"scripts/x.sh": ("", "700")}, "event": EVENT, "change": None}
    reply = change(home, **wish, scripts=["serve_0.sh"], join=part(5), exclusive=["gpus"], common={"digest": "d2"})
    assert [claim["what"] for claim in reply["taken"]] == ["GPU 5"]
    assert (home.read_record(), told(home)) == (before, [])
    assert (home.state / "scripts/serve_0.sh").read_text() == "new"
    assert not (home.state / "scripts/x.sh").exists()


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"common": {"digest": "d2", "processes": []}}, "processes of a record cannot be changed"),
        ({"common": {"run_id": "r2"}}, "run_id of a record cannot be changed"),
        ({"files": {"../../evil": ("", "700")}}, "cannot be used as a path"),
        ({"change": None, "before": "forget", "event": {**EVENT, "run_id": "c0"}}, "is changed by c1, not by c0"),
    ],
)
def test_what_no_change_may_do_is_refused(home: Home, wish: dict[str, Any], why: str) -> None:
    begun(home)
    before = home.read_record()
    assert why in refused(home, **wish)
    assert (home.read_record(), told(home)) == (before, [])
    assert (home.state / before_change.FOLDER).is_dir()


def test_a_host_keeps_the_configurations_that_a_change_leads_from_and_to(home: Home) -> None:
    deployed(home)
    for number in range(25):
        (home.state / kept.FOLDER).mkdir(exist_ok=True)
        (home.state / kept.path_of(f"2025{number:02d}")).write_text("{}")
    change(home, change={**CHANGE, "run_id": "2026", "base": "202500"}, files={kept.path_of("2026"): ("{}", "600")})
    names = sorted(path.stem for path in (home.state / kept.FOLDER).iterdir())
    assert (len(names), names[0], names[-1]) == (kept.MOST, "202500", "2026")


@pytest.mark.parametrize("end", ["stop", "reserve"])
def test_the_end_of_a_run_is_that_of_what_was_kept_for_its_change(home: Home, end: str) -> None:
    begun(home)
    (home.state / before_change.UNFINISHED).mkdir()
    if end == "stop":
        home.run("stop", run_id=None, grace=1.0)
    else:
        home.record({}, stopped_at=1.0)
        home.hear("reserve", run_id="r2", exclusive=[], record={"gpus": [], "ports": {}})
    assert not [path for path in home.state.iterdir() if path.name.startswith(before_change.FOLDER)]


def test_launch_writes_nothing_outside_the_state_directory(home: Home) -> None:
    home.record({}, boot_id=record.boot_id())
    home.stderr = os.open(os.devnull, os.O_WRONLY)
    with home.open("launch", **launching(home, files={"../evil": ("", "700")})) as program:
        output = program.communicate(timeout=60)[0]
    assert (program.returncode, b"cannot be used as a path" in output) == (1, True)
    assert not (home.state.parent / "evil").exists()
