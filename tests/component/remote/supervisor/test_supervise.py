"""The supervisor of a server, as its launch script starts it: real processes, which die in every way there is."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment import ray_temp, restart_permits
from flagscale_deploy.remote.messages.run import RayNodesReply
from flagscale_deploy.remote.supervisor.ends import delay, describe_exit
from flagscale_deploy.remote.supervisor.on_ray import what_ray_lacks
from tests.component.remote.living import HOST_PYTHON, Home, birth, messages, runs, wait_until
from tests.component.remote.stand_in import ENGINE as ENGINE_REPLIES
from tests.component.remote.stand_in import NOBODY, stand_in
from tests.component.remote.supervisor.supervised import ENGINE, SCRIPT, Supervised
from tests.other_user import needs_root
from tests.tls import certificate
from tests.unit.sources import ROOT


def test_what_dies_after_it_was_ready_lives_again_and_its_log_goes_on(supervised: Supervised) -> None:
    supervised.start()
    for life in (1, 2):
        supervised.kill()
        wait_until(partial(supervised.lived, life + 1))
    wait_until(lambda: supervised.said["state"] == "running")
    text = supervised.said
    assert (text["restarts"], text["in_a_row"], text["max"]) == (2, 2, 5)
    assert text["pid"] == supervised.lives[-1]
    assert abs((text["last_restart"] or 0.0) - time.time()) < 20
    lines = supervised.told.splitlines()
    assert lines.count("half a line") >= 2, "the supervisor's words stand on lines of their own"
    second = next(line for line in lines if "restart 2" in line)
    pattern = r"flagscale-deploy [-\d]+ [:\d]+: m/0 was ended by SIGKILL after \d+ s; restart 2 of 5 in 0.05 s"
    assert re.fullmatch(pattern, second)


def test_after_so_many_restarts_in_a_row_it_is_given_up(supervised: Supervised) -> None:
    supervised.start("--max=3", LIVES="1")
    supervised.kill()
    assert supervised.wait() == 1
    assert len(supervised.lives) == 4
    text = supervised.said
    assert (text["state"], text["restarts"]) == ("gave up", 3)
    assert re.fullmatch(r"ended with exit status 3 after \d s; gave up after 3 restarts", text["why"])
    assert text["why"] in supervised.told


@pytest.mark.parametrize("made_by_script", [False, True])
def test_a_temporary_directory_that_was_removed_is_there_again(supervised: Supervised, made_by_script: bool) -> None:
    """With its claim, also where a script of the run was there first: one that asks Ray for its nodes, say."""
    session = os.urandom(4).hex()
    temporary = Path(f"/tmp/fsd-{os.getuid()}-{session}")
    (temporary / "tmp").mkdir(parents=True)
    try:
        supervised.start(TMPDIR=str(temporary / "tmp"))
        shutil.rmtree(temporary)
        if made_by_script:
            temporary.mkdir(0o700)
            (temporary / "tmp").mkdir(0o700)
        supervised.kill()
        wait_until(partial(supervised.lived, 2))
        assert (temporary / "tmp").is_dir()
        assert temporary.stat().st_mode & 0o777 == 0o700
        assert ray_temp.belongs(str(temporary), supervised.home.deployment, supervised.home.state.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def test_a_temporary_directory_whose_name_was_taken_since_is_left_to_its_taker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is quick once /tmp was cleaned would have the engine write, and read, in a directory of theirs."""
    taken = Path(f"/tmp/fsd-{os.getuid()}-{os.urandom(4).hex()}")
    (tmp_path / "tmp").mkdir()
    taken.symlink_to(tmp_path)
    monkeypatch.setenv("TMPDIR", str(taken / "tmp"))
    try:
        ray_temp.renew(tmp_path / "qwen" / "gpu01", "r1")
    finally:
        taken.unlink()
    made = Path(os.environ["TMPDIR"]).parent
    assert made != taken
    assert ray_temp.belongs(str(made), "qwen", "gpu01")
    shutil.rmtree(made)


def is_past(moment: float) -> bool:
    return time.monotonic() > moment


def test_a_time_of_health_begins_the_count_anew(supervised: Supervised) -> None:
    supervised.start("--max=1", "--reset-after=0.1")
    for life in (1, 2, 3):
        wait_until(lambda: bool(supervised.said["healthy"]))
        wait_until(partial(is_past, time.monotonic() + 0.15))
        supervised.kill()
        wait_until(partial(supervised.lived, life + 1))
        wait_until(lambda: supervised.said["state"] == "running")
    assert (supervised.said["restarts"], supervised.said["in_a_row"]) == (3, 1)


SERVING = f"""
import json, os, sys
sys.path[:0] = [{str(ROOT)!r}]
from tests.component.remote import stand_in
behaviour = json.loads(os.environ["BEHAVIOUR"])
lives = sys.argv[1]
open(lives, "a").write("%d\\n" % os.getpid())
behaviour["port"] = int(os.environ["PORT"])
sys.argv[1] = json.dumps(behaviour)
stand_in.main()
"""
"""An engine that serves on PORT, as the stand-in of BEHAVIOUR."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_health_is_asked_over_tls_with_the_servers_own_certificate(supervised: Supervised, tmp_path: Path) -> None:
    pair, port = certificate(tmp_path, "model.example.com"), free_port()
    behaviour = {"address": "127.0.0.1", "certificate": [str(path) for path in pair], "replies": ENGINE_REPLIES}
    options = f"--health=https://127.0.0.1:{port}/health", f"--certificate={pair[0]}"
    supervised.start(*options, engine=SERVING, PORT=str(port), BEHAVIOUR=json.dumps(behaviour))
    supervised.kill()
    wait_until(lambda: supervised.lived(2) and bool(supervised.said["healthy"]))
    assert supervised.said["restarts"] == 1


@needs_root
def test_a_stranger_on_the_port_is_named_and_is_not_the_servers_health(supervised: Supervised, tmp_path: Path) -> None:
    with stand_in(tmp_path, uid=NOBODY, replies=ENGINE_REPLIES) as stranger:
        supervised.start(f"--health={stranger.url}/health")
        supervised.kill()
        named = f"port {stranger.port} is held by another user's process (uid 65534, pid {stranger.process.pid})"
        wait_until(lambda: supervised.lived(2) and supervised.said["why"] == named)
        wait_until(lambda: f"m/0 {named}" in supervised.told)
        assert not supervised.said["healthy"]
        assert stranger.heard == []
        assert supervised.told.count(named) == 1


def test_what_was_never_ready_ends_its_supervisor_with_its_own_status(supervised: Supervised) -> None:
    supervised.start(ready=False, LIVES="0")
    assert supervised.wait() == 3
    assert "restart" not in supervised.told


def test_a_command_that_is_not_there_is_said(supervised: Supervised, home: Home) -> None:
    supervised.start(ready=False, LIVES="0").wait()
    command = [HOST_PYTHON, str(home.state / "supervisor"), "supervise", f"--state={home.state}", "--run=r1",
               f"--script={SCRIPT}", "--name=m/0", "--max=5", "--first=1", "--factor=1", "--ceiling=1",
               "--reset-after=1", "--", "no-such-command"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 127
    assert "no-such-command: No such file or directory" in done.stdout


def test_a_program_that_has_done_its_work_is_not_started_again(supervised: Supervised) -> None:
    supervised.start("--may-end=1", engine=ENGINE.replace("time.sleep(600)", "time.sleep(1)"))
    assert supervised.wait() == 0
    assert len(supervised.lives) == 1


def test_what_a_dead_engine_leaves_is_gone_before_the_next_one_starts(supervised: Supervised, tmp_path: Path) -> None:
    """A child in a session of its own, with neither environment nor parent: nothing tells whose it was."""
    orphan = "exec env -i bash -c 'exec -a VLLM::EngineCore sleep 600'"
    leave = f"""
import subprocess
out = subprocess.check_output(["setsid", "bash", "-c", "({orphan}) >/dev/null 2>&1 & echo $!"], text=True)
open({str(tmp_path / "orphans")!r}, "a").write(out)
"""
    supervised.start(engine=leave + ENGINE)
    first = int((tmp_path / "orphans").read_text())
    assert runs(first)
    supervised.kill()
    wait_until(lambda: len(supervised.lives) == 2)
    assert not runs(first)
    assert "ended 1 remaining process" in supervised.told
    (_, second) = (int(line) for line in (tmp_path / "orphans").read_text().split())
    assert runs(second)
    os.kill(second, signal.SIGKILL)


@pytest.mark.parametrize("by", ["stop", "hand"])
def test_the_engine_is_asked_to_end_once_and_has_its_time(supervised: Supervised, by: str) -> None:
    supervised.start(SLOW="0.3")
    if by == "stop":
        assert supervised.stop()["survivors"] == []
    else:
        os.kill(supervised.pid, signal.SIGTERM)
        assert supervised.wait() == 0
    assert supervised.terms == "T"
    assert "a graceful end" in supervised.told
    assert len(supervised.lives) == 1


def test_a_killed_supervisor_does_not_take_its_engine_along(supervised: Supervised) -> None:
    supervised.start()
    os.kill(supervised.pid, signal.SIGKILL)
    supervised.wait()
    assert runs(supervised.lives[0])
    assert supervised.terms == ""
    text = supervised.stop()
    assert text["survivors"] == []
    assert not runs(supervised.lives[0])


def test_stop_ends_the_wait_for_a_restart(supervised: Supervised) -> None:
    supervised.start("--first=600", "--ceiling=600")
    supervised.kill()
    wait_until(lambda: "restart 1 of 5 in 600 s" in supervised.told)
    assert supervised.stop()["survivors"] == []
    assert len(supervised.lives) == 1


def test_a_stop_that_can_only_forbid_is_enough(supervised: Supervised) -> None:
    """Whatever becomes of its SIGTERM."""
    supervised.start("--first=600", "--ceiling=600")
    supervised.kill()
    wait_until(lambda: "restart 1 of 5 in 600 s" in supervised.told)
    os.environ["HOME"], before = str(supervised.home.path), os.environ["HOME"]
    try:
        restart_permits.forbid(supervised.home.deployment, supervised.home.host, ["r1"])
    finally:
        os.environ["HOME"] = before
    assert supervised.wait() == 0
    assert len(supervised.lives) == 1


def test_a_group_that_is_stopped_by_itself_is_not_restarted_and_its_supervisor_leaves(supervised: Supervised) -> None:
    supervised.start("--first=600", "--ceiling=600")
    supervised.kill()
    wait_until(lambda: "restart 1 of 5 in 600 s" in supervised.told)
    supervised.files.forbid()
    assert supervised.wait() == 0
    assert len(supervised.lives) == 1


def test_a_licence_is_not_given_after_a_stop_and_a_lost_directory_is_none(supervised: Supervised) -> None:
    supervised.start()
    supervised.stop()
    supervised.files.permit()
    assert not supervised.files.permitted
    other = restart_permits.Files(supervised.home.state, "r2", SCRIPT)
    assert not other.permitted
    other.permit()
    assert other.permitted, "a run's stop says nothing of the next run"


@pytest.mark.parametrize("seed", range(8))
def test_stop_wins_at_whatever_moment_the_engine_dies(supervised: Supervised, seed: int) -> None:
    """It dies before, while, or after the stop begins: nothing survives, nothing comes back."""
    chance = random.Random(seed)
    supervised.start("--first=0.02", "--ceiling=0.02", "--max=1000", SLOW=str(chance.choice([0, 0.1])))
    kills, began = chance.uniform(0, 0.4), chance.uniform(0, 0.4)
    stopping = None
    start = time.monotonic()
    while stopping is None or time.monotonic() < start + kills:
        if time.monotonic() >= start + kills - 0.05:
            with contextlib.suppress(ProcessLookupError):
                supervised.kill()
        if stopping is None and time.monotonic() >= start + began:
            stopping = supervised.home.open("stop", run_id=None, grace=5.0, ray_grace=5.0)
    text = messages(stopping.communicate(timeout=30)[0])
    assert text[-1]["survivors"] == []
    supervised.wait()
    lives = len(supervised.lives)
    assert supervised.left() == []
    assert not any(runs(pid) for pid in supervised.lives)
    assert len(supervised.lives) == lives


def test_the_state_is_written_whole(supervised: Supervised) -> None:
    """Somebody who reads it all the time never sees half of it."""
    supervised.start("--max=1000", "--first=0.01", "--ceiling=0.01")
    path = supervised.home.state / "restart/r1/vllm_serve_m_0.json"
    seen = set()
    for _ in range(5):
        before = len(supervised.lives)
        supervised.kill()
        while len(supervised.lives) == before:
            seen.add(json.loads(path.read_text())["state"])
    assert "restarting" in seen


def test_waits_grow_up_to_a_ceiling() -> None:
    assert [delay(number, 1.0, 2.0, 60.0) for number in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay(5, 10.0, 1.0, 10.0) == 10
    assert delay(100000, 1.0, 2.0, 60.0) == 60


@pytest.mark.parametrize(
    ("answer", "lacks"),
    [
        ({"nodes": {}, "missing": [], "available": {"GPU": 4.0}}, ""),
        ({"nodes": {}, "missing": [], "available": {"GPU": 2.0}}, "Ray has 2 of 4 GPUs free"),
        ({"nodes": {}, "missing": [], "available": {}}, "Ray has 0 of 4 GPUs free"),
        ({"missing": ["10.0.0.2: no node"], "available": {"GPU": 4.0}}, "Ray lacks 10.0.0.2: no node"),
        ({"why": "Ray does not answer within 30 s"}, "Ray does not answer: Ray does not answer within 30 s"),
    ],
)
def test_what_ray_lacks_is_said(answer: RayNodesReply, lacks: str) -> None:
    assert what_ray_lacks(answer, 4) == lacks


def test_an_end_is_told_in_words() -> None:
    assert describe_exit(0) == "ended with exit status 0"
    assert describe_exit(-9) == "was ended by SIGKILL"
    assert birth(os.getpid())["pid"] == os.getpid()
