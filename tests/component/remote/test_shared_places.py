"""Another user of the host has taken every name in /tmp that a program or script would use, in every way there is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import ray_temp
from flagscale_deploy.rendering.render import load_templates
from flagscale_deploy.transport.remote_program import READER
from tests.component.remote import living
from tests.component.remote.living import Home, messages
from tests.other_user import as_nobody, needs_root

pytestmark = needs_root

WORDS = "STRANGER"
PRECIOUS = Path(f"/tmp/precious-{uuid.uuid4().hex[:8]}")


def open_directory(path: Path, deployment: str) -> None:
    """Everybody may write in it, and it claims to be the deployment's."""
    path.mkdir()
    path.chmod(0o777)
    (path / "flagscale-deploy.json").write_text(json.dumps({"deployment": deployment, "who": WORDS}))
    logs = path / "session_1" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text(f"{WORDS}\n")
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o777)


def closed_directory(path: Path, _: str) -> None:
    path.mkdir(mode=0o700)


def file(path: Path, _: str) -> None:
    path.write_text(WORDS)
    path.chmod(0o666)


def hard_link(path: Path, deployment: str) -> None:
    other = path.with_name(path.name + ".other")
    file(other, deployment)
    os.link(other, path)


def fifo(path: Path, _: str) -> None:
    os.mkfifo(path)
    path.chmod(0o666)


def unix_socket(path: Path, _: str) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def dangling_link(path: Path, _: str) -> None:
    path.symlink_to("/nowhere/at/all")


def link_to_ours(path: Path, _: str) -> None:
    """Link to a directory of the user who is attacked."""
    path.symlink_to(PRECIOUS)


KINDS = (open_directory, closed_directory, file, hard_link, fifo, unix_socket, dangling_link, link_to_ours)


@pytest.fixture(autouse=True)
def precious() -> Iterator[Path]:
    """Provide a directory of ours that a stranger's link leads to."""
    PRECIOUS.mkdir(mode=0o700)
    (PRECIOUS / "flagscale-deploy.json").write_text("{}")
    yield PRECIOUS
    shutil.rmtree(PRECIOUS)


@pytest.fixture
def session(deployment: str) -> Iterator[str]:
    """Provide a session's name; whatever was made of it, by whomever, goes with the test."""
    name = uuid.uuid4().hex[:8]
    yield name
    own = [Path(path) for path in ray_temp.directories(deployment, "gpu01", {})]
    for path in [*own, *Path("/tmp").glob(f"fsd-{os.getuid()}-{name}*")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def taken(request: pytest.FixtureRequest, session: str, deployment: str) -> Path:
    """Have a stranger take the name of the run's directory; return it."""
    make: Callable[[Path, str], None] = request.param
    path = Path(f"/tmp/fsd-{os.getuid()}-{session}")
    as_nobody(partial(make, path, deployment))
    return path


def state_of(*paths: Path) -> list[object]:
    """Return what would show that somebody wrote to these paths, or below them."""
    states: list[object] = []
    for path in paths:
        for entry in [path, *sorted(path.rglob("*"))] if path.is_dir() and not path.is_symlink() else [path]:
            status = entry.lstat()
            content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            states.append((str(entry), status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, content))
    return states


def script(session: str, before_start: str | None = None) -> str:
    """Return a script that begins as all do, and tells where its temporary directory is."""
    settings = {
        "ray": {"session": session},
        "env": {},
        "ray_enabled": False,
        "venv": None,
        "before_start": before_start,
    }
    environment = load_templates().render("_environment.sh.j2", **settings)
    return f'#!/usr/bin/env bash\n{environment}\ntouch "$TMPDIR/made"\necho "$TMPDIR"\n'


def launch(home: Home, session: str) -> list[dict[str, Any]]:
    """Launch it with an operator who listens until it has ended."""
    args = {"script": "x.sh", "role": "engine", "detached": False, "timeout": 20, "session": session}
    files = {"scripts/x.sh": [script(session), "700"]}
    with home.open("launch", run_id="r1", record={}, files=files, **args) as program:
        assert program.stdout is not None
        return messages(program.stdout.read())


def test_a_run_starts_under_another_name_and_is_found_and_removed(
    home: Home, session: str, taken: Path, precious: Path
) -> None:
    before = state_of(taken, precious)
    wanted = {"gpus": [0], "ports": {"m/0": 1}}
    assert home.hear("reserve", run_id="r1", record=wanted, exclusive=["gpus", "ports"]) == [{"taken": []}]
    started, ended = launch(home, session)
    assert ended["exit_code"] == 0, ended
    own = Path(home.read_record()["ray_temp_dir"])
    assert own != taken
    assert ended["tail"] == [f"{own}/tmp"]
    status = own.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.getuid())
    assert launch(home, session)[-1]["tail"] == ended["tail"]
    assert home.run("stop", grace=1.0)[-1]["survivors"] == []
    (cleaned,) = home.run("cleanup")
    assert str(own) in cleaned["removed"]
    assert not own.exists()
    assert state_of(taken, precious) == before
    assert started["log"].startswith(str(home.state))


def test_no_program_reads_or_changes_what_a_stranger_has_made(home: Home, taken: Path, precious: Path) -> None:
    """Its claim names the deployment, its log is named as Ray names them, and the record may name it."""
    home.record(ray_temp_dir=str(taken), boot_id="another", started_at=0.0)
    (home.state / "logs" / "vllm_serve.log").write_text("ours\n")
    before = state_of(taken, precious)
    replies: list[dict[str, Any]] = []
    probing: dict[str, Any] = {"venv": None, "before_start": None, "env": {}, "models": [], "tls_files": []}
    for program, args in (
        ("probe", probing), ("inspect", {"ask": False}), ("follow", {"tail": 10}), ("archive", {}),
        ("unlock", {"force": False, "gone": 45.0, "by": {}}), ("reserve", {"run_id": "r1", "release": True}),
        ("stop", {"grace": 1.0}), ("cleanup", {}),
    ):  # fmt: skip
        replies += home.run(program, **args)
    assert any("ours" in reply.get("lines", []) for reply in replies)
    assert WORDS not in json.dumps(replies)
    assert state_of(taken, precious) == before


def test_a_script_that_is_run_by_hand_takes_a_directory_of_its_own_state(
    home: Home, session: str, taken: Path, precious: Path
) -> None:
    before = state_of(taken, precious)
    path = home.state / "scripts" / "x.sh"
    path.write_text(script(session))
    ended = subprocess.run(["bash", path], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == f"{home.state}/tmp/tmp\n"
    assert state_of(taken, precious) == before


def test_a_directory_in_the_place_of_the_former_lock_keeps_no_run_back(home: Home) -> None:
    former = Path(f"/tmp/fsd-{os.getuid()}.lock")
    with contextlib.suppress(FileExistsError):
        former.mkdir()
        os.chown(former, 65534, 65534)
    try:
        assert home.hear("reserve", run_id="r1", record={"gpus": [], "ports": {}}, exclusive=["gpus"]) == [
            {"taken": []}
        ]
        assert former.is_dir()
    finally:
        with contextlib.suppress(OSError):
            former.rmdir()


WATCHING = """
import os, sys
def watch(event, args, shared=("/tmp", "/dev/shm", "/var/tmp", "/run/user")):
    for path in args[:2] if event.startswith(("open", "os.", "shutil.", "tempfile.")) else ():
        path = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
        if path.startswith(shared) and not path.startswith(os.environ["HOME"]):
            os.write(2, ("used %s\\n" % path).encode())
sys.addaudithook(watch)
"""


def test_programs_use_no_other_path_in_a_shared_place(
    home: Home, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python itself tells of every file and directory that a program opens, makes, lists or removes."""
    monkeypatch.setattr(living, "PYTHON_WORDS", ("-SE", "-c", WATCHING + READER))
    monkeypatch.setenv("TMPDIR", "/tmp")
    home.stderr = subprocess.PIPE
    used: set[str] = set()
    args: dict[str, Any] = {"run_id": "r1", "record": {"gpus": [], "ports": {}}, "files": {"scripts/x.sh": ["", "700"]}}
    args |= {"script": "x.sh", "role": "engine", "detached": False, "timeout": 20, "session": session, "wait": 0.0}
    args |= {"exclusive": ["gpus"], "venv": None, "before_start": "", "env": {}, "models": [], "tls_files": []}
    args |= {"ask": True, "tail": 5, "force": False, "gone": 45.0, "by": {}, "grace": 0.1, "boot": "host"}
    args |= {"program": "", "lines": [], "seconds": 5.0, "holder": {}, "beat": 1.0, "lease": 5.0}
    for program in ("lock", "probe", "parse_flags", "reserve", "launch", "inspect", "follow", "archive", "unlock",
                    "stop", "cleanup"):  # fmt: skip
        with home.open(program, **args) as running:
            if program == "launch":
                assert running.stdout is not None
                running.stdout.read()
            output, errors = running.communicate(timeout=60)
        assert b"traceback" not in output, output
        used |= {line.split(" ", 1)[1] for line in errors.decode().splitlines() if line.startswith("used ")}
    chance = "[a-z0-9_]{8}"  # of tempfile, which makes them for itself alone
    named = rf"/tmp|/dev/shm|/tmp/{chance}|/tmp/fsd-({os.getuid()}-[0-9a-f]{{8}}|parse-{chance})(/.*)?"
    assert {path for path in used if not re.fullmatch(named, path)} == set()
    assert f"/tmp/fsd-{os.getuid()}-{session}" in used


def test_a_home_in_a_shared_place_that_a_stranger_has_taken_is_refused_in_words() -> None:
    shared = Path(f"/tmp/shared-{uuid.uuid4().hex[:8]}")
    shared.mkdir()
    shared.chmod(0o1777)
    try:
        as_nobody(lambda: open_directory(shared / ".flagscale-deploy", "x"))
        home = Home.__new__(Home)
        home.path, home.deployment, home.host, home.stderr = shared, "x", "gpu01", None
        with home.open("cleanup") as program:
            output = program.communicate(timeout=30)[0].decode()
        assert program.returncode == 1
        assert "belongs to another user (uid 65534): remove it" in output
    finally:
        shutil.rmtree(shared)


def test_our_directory_is_closed_to_others_before_its_lock_is_waited_for(tmp_path: Path) -> None:
    """Whoever may read a directory or a file may hold a lock on it for ever."""
    home = Home.__new__(Home)
    home.path, home.deployment, home.host, home.stderr = tmp_path, "x", "gpu01", None
    (tmp_path / ".flagscale-deploy").mkdir()
    (tmp_path / ".flagscale-deploy").chmod(0o755)
    with home.open("inspect", ask=False) as program:
        program.communicate(timeout=60)
    assert (tmp_path / ".flagscale-deploy").stat().st_mode & 0o777 == 0o700


def test_what_programs_and_scripts_make_is_for_the_owner_alone_whatever_the_umask_is(home: Home, session: str) -> None:
    for path in (home.path / ".flagscale-deploy", *home.state.parents[:1], home.state, *home.state.iterdir()):
        path.chmod(0o700)
    before = os.umask(0)
    try:
        assert home.hear("reserve", run_id="r1", record={"gpus": [], "ports": {}}, exclusive=["gpus"]) == [
            {"taken": []}
        ]
        launch(home, session)
    finally:
        os.umask(before)
    own = Path(home.read_record()["ray_temp_dir"])
    made = [own, *own.rglob("*"), *(home.path / ".flagscale-deploy").rglob("*")]
    assert own / "tmp" / "made" in made
    assert [path for path in made if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


@pytest.mark.parametrize(("before_start", "mode"), [(None, 0o600), ("umask 022", 0o644)])
def test_a_hook_may_open_to_others_what_engines_download(
    home: Home, session: str, before_start: str | None, mode: int
) -> None:
    (home.state / "scripts" / "x.sh").write_text(script(session, before_start))
    subprocess.run(["bash", home.state / "scripts" / "x.sh"], timeout=30, check=True, stdout=subprocess.DEVNULL)
    made = Path(f"/tmp/fsd-{os.getuid()}-{session}/tmp/made")
    assert stat.S_IMODE(made.stat().st_mode) == mode


def test_the_longest_socket_of_ray_fits_into_the_path_of_a_unix_socket() -> None:
    """With the largest uid and pid; Ray 2.60 names its session and sockets so."""
    session = hashlib.sha256(b"run").hexdigest()[:8]
    path = f"/tmp/fsd-{2**32 - 2}-{session}/ray/session_2026-11-22_10-26-31_123456_{2**22}/sockets/plasma_store"
    assert len(path) <= 107
