"""What a host says of all that runs on it, from real processes of ours and of another user."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import history
from flagscale_deploy.remote.deployment.record import boot_id
from flagscale_deploy.remote.messages.ps import PS
from flagscale_deploy.remote.programs import ps
from flagscale_deploy.remote.system.proc import MARKER, Process, scan
from tests.component.remote.living import SLEEP, Home, Household
from tests.other_user import needs_root

NOBODY = 65534
EVENT: Any = {
    "schema": 1, "deployment": "q", "server": "q/0", "host": "gpu01", "event": "restored", "reason": "it ended",
    "attempt": 1, "max": 5, "evidence": "", "time": 9.0,
}  # fmt: skip


def listed(home: Home) -> Any:
    (reply,) = home.run("ps", gpus=False)
    return reply


def test_deployments_with_and_without_a_record_are_listed(home: Home, people: Household) -> None:
    (pid,) = people.python(SLEEP, f"{home.deployment}/r1")
    people.python(SLEEP, "lost-its-record/r2")
    home.record({"engine": pid})
    history.append(home.state, EVENT)
    own = {one["deployment"]: one for one in listed(home)["deployments"]}
    assert own[home.deployment]["seen"]["live"] == 1
    assert own[home.deployment]["seen"]["processes"][0]["alive"]
    assert own[home.deployment]["last_event"] == EVENT
    assert own["lost-its-record"]["seen"]["record"] is None
    assert own["lost-its-record"]["seen"]["live"] == 1


@pytest.mark.parametrize("line", ["", "x", "{}", '{"time": "now"}', json.dumps({**EVENT, "time": "now"})])
def test_a_broken_history_has_no_last_event(home: Home, line: str) -> None:
    home.record()
    (home.state / history.NAME).write_text(line + "\n")
    (own,) = (one for one in listed(home)["deployments"] if one["deployment"] == home.deployment)
    assert own["last_event"] is None


def test_names_of_records_that_are_none_are_passed_over(home: Home) -> None:
    (home.state / "record.json").write_text(json.dumps({"run_id": "r1"}))
    assert home.deployment not in {one["deployment"] for one in listed(home)["deployments"]}


@needs_root
def test_another_users_engines_are_named_by_deployment_and_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".flagscale-deploy" / "llama" / "gpu01"
    folder.mkdir(parents=True)
    record = folder / "record.json"
    server = {"name": "l/0", "model": "l", "driver": "gpu01", "served_name": "llama", "endpoint": "http://h:1/v1"}
    record.write_text(
        json.dumps({"instances": [server], "boot_id": boot_id(), "machine": os.uname().nodename, "deployment": "llama"})
    )
    entry = pwd.struct_passwd(("nobody", "x", NOBODY, NOBODY, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    running = [
        subprocess.Popen(
            [name, "-c", "echo up; read ending"],
            executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/",
            user=NOBODY, group=NOBODY, extra_groups=[], env={MARKER: marker} if marker else {},
        )
        for name, marker in (("sh", "llama/r1"), ("VLLM::EngineCore", ""))
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
        unreadable = {other["deployment"]: other for other in ps.of_others(scan()) if other["user"] == "nobody"}
        os.chown(record, NOBODY, NOBODY)
        readable = {other["deployment"]: other for other in ps.of_others(scan()) if other["user"] == "nobody"}
    finally:
        for process in running:
            process.kill()
            process.communicate(timeout=10)
    assert {name: other["processes"] for name, other in unreadable.items()} == {"llama": 1, "": 1}
    assert abs(unreadable["llama"]["since"] - time.time()) < 600
    assert (unreadable["llama"]["models"], unreadable["llama"]["endpoint"]) == ([], ""), (
        "the file was not that user's own"
    )
    assert (readable["llama"]["models"], readable["llama"]["endpoint"]) == (["llama"], "http://h:1/v1")


def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a deployment in the home directory of the user nobody, whose every text is theirs."""
    entry = pwd.struct_passwd(("nobody", "x", NOBODY, NOBODY, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    folder = tmp_path / ".flagscale-deploy" / "llama"
    (folder / "gpu01").mkdir(parents=True)
    return folder


def theirs(*markers: str, uid: int = NOBODY) -> list[Process]:
    return [Process(4_000_000 + at, 1, 1, 1, "S", uid, "sh", marker) for at, marker in enumerate(markers)]


@needs_root
@pytest.mark.parametrize(
    "servers",
    ["x", [7], [{}], [{"served_name": 7}], [{"served_name": None, "endpoint": ["x"]}], [{"endpoint": {"a": 1}}],
     [{"served_name": "l", "endpoint": 7}], [{"served_name": "l" * 100_000}] * 40],
)  # fmt: skip
def test_no_record_of_another_user_keeps_the_list_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: object
) -> None:
    record = hostile(tmp_path, monkeypatch) / "gpu01/record.json"
    record.write_text(json.dumps({"instances": servers, "boot_id": boot_id(), "machine": os.uname().nodename}))
    os.chown(record, NOBODY, NOBODY)
    (other,) = ps.of_others(theirs("llama/r1"))
    assert (other["deployment"], other["processes"], other["endpoint"]) == ("llama", 1, "")
    assert all(len(model) <= ps.LONGEST for model in other["models"])


@needs_root
def test_what_another_user_makes_many_of_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hostile(tmp_path, monkeypatch)
    for number in range(500):
        (folder / str(number)).mkdir()
    looked_at: list[Path] = []
    lstat = Path.lstat

    def look(path: Path) -> os.stat_result:
        looked_at.append(path)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", look)
    others = ps.of_others(theirs(*(f"llama/r{number}" for number in range(300)), *(f"q{n}/r" for n in range(300))))
    assert len(others) == ps.MOST
    assert len(looked_at) <= ps.MOST


def test_another_user_s_texts_leave_room_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many models as are taken, each of the longest name, in characters that take twelve bytes in JSON."""
    long: Any = [{"served_name": chr(0x1F600 + number) * 999, "endpoint": "\U0001f600" * 999} for number in range(99)]
    monkeypatch.setattr(ps, "_servers", lambda *_: long)
    others = ps.of_others(theirs(*(f"q{number}/r" for number in range(300))))
    assert (len(others), len(others[0]["models"]), others[-1]["models"]) == (ps.MOST, ps.MOST_MODELS, [])
    assert len(json.dumps(others)) < PS.message_bytes / 2


def test_no_user_hides_what_another_one_serves() -> None:
    many = [*theirs(*(f"a{number}/r" for number in range(300))), *theirs("llama/r", uid=NOBODY + 1)]
    assert "llama" in {other["deployment"] for other in ps.of_others(many)}


@needs_root
def test_a_home_directory_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile(tmp_path, monkeypatch)
    monkeypatch.setattr(ps, "READ_SECONDS", 0.5)
    over = threading.Event()
    monkeypatch.setattr(os, "scandir", lambda _path: over.wait(60))
    began = time.monotonic()
    try:
        others = ps.of_others(theirs(*(f"q{number}/r" for number in range(50))))
    finally:
        over.set()
    assert time.monotonic() - began < 10
    assert [other["models"] for other in others] == [[]] * 50


@pytest.mark.parametrize(
    ("command", "serves"),
    [
        ("vllm serve /m", True),
        ("/opt/v/bin/vllm serve", True),
        ("/opt/v/bin/python3.12 /opt/v/bin/vllm serve /m", True),
        ("python vllm  serve /m", True),
        ("vllm bench serve", False),
        ("vllm", False),
        ("bash -c vllm serve", False),
        ("grep vllm serve", False),
        ("/" * 300, False),
        ("", False),
    ],
)
def test_a_server_is_known_by_its_command_line(command: str, serves: bool) -> None:
    assert ps.is_server(command) is serves
