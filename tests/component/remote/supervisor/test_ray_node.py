"""The supervisor of a Ray node: its server is a command that ends and leaves daemons."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial

import pytest

from tests.component.remote.living import runs, wait_until
from tests.component.remote.supervisor.supervised import Supervised
from tests.component.remote.supervisor.test_supervise import free_port

START = """
echo $$ >> "$0"
[ "$(wc -l < "$0")" -le "${LIVES:-1000}" ] || exit 3
for name in $DAEMONS; do
  setsid bash -c "exec -a '$name --session-name=$(cat "$0.session" 2>/dev/null)' sleep 600" </dev/null >/dev/null 2>&1 &
  until grep -q "^$name" "/proc/$!/cmdline"; do sleep 0.01; done
done
"""
"""`ray start`, with daemons in sessions of their own."""
HEAD = "gcs_server raylet dashboard"


def daemon(supervised: Supervised, name: str) -> int:
    (process,) = [item for item in supervised.left() if item.command.split()[0] == name]
    return process.pid


def up(supervised: Supervised) -> bool:
    return bool(supervised.said.get("healthy"))


def start(supervised: Supervised, *options: str, ready: bool = True, daemons: str = HEAD, **env: str) -> Supervised:
    supervised.start(*options, ready=False, engine=START, program="ray_node", DAEMONS=daemons, **env)
    wait_until(lambda: up(supervised) or supervised.ended)
    if ready:
        supervised.files.permit()
    return supervised


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_node_whose_daemon_dies_is_started_again_as_a_whole(supervised: Supervised, name: str) -> None:
    start(supervised)
    before = {process.pid for process in supervised.left() if process.pid != supervised.pid}
    assert len(before) == 3
    os.kill(daemon(supervised, name), signal.SIGKILL)
    wait_until(lambda: supervised.lived(2) and up(supervised))
    assert f"m/0 lost its {name}, which was ended by SIGKILL; restart 1 of 5 in 0.05 s" in supervised.told
    assert not any(runs(pid) for pid in before)
    assert {item.command.split()[0] for item in supervised.left() if item.pid != supervised.pid} == set(HEAD.split())
    assert (supervised.said["restarts"], supervised.said["state"]) == (1, "running")


def test_a_dashboard_that_dies_is_not_missed(supervised: Supervised) -> None:
    start(supervised)
    os.kill(daemon(supervised, "dashboard"), signal.SIGKILL)
    os.kill(daemon(supervised, "raylet"), signal.SIGKILL)
    wait_until(lambda: supervised.lived(2) and up(supervised))
    assert "dashboard" not in supervised.told


def test_before_the_deployment_was_ready_it_ends_with_its_daemon(supervised: Supervised) -> None:
    start(supervised, ready=False)
    os.kill(daemon(supervised, "raylet"), signal.SIGKILL)
    assert supervised.wait() == 1
    assert "restart" not in supervised.told


@pytest.mark.parametrize(("daemons", "lives", "status"), [(HEAD, "0", 3), ("gcs_server", "9", 1)])
def test_a_node_that_does_not_start_ends_with_its_status(
    supervised: Supervised, daemons: str, lives: str, status: int
) -> None:
    start(supervised, ready=False, daemons=daemons, LIVES=lives)
    assert supervised.wait() == status
    assert not up(supervised)


def test_it_is_given_up_with_its_reason(supervised: Supervised) -> None:
    start(supervised, "--max=2", LIVES="1")
    os.kill(daemon(supervised, "raylet"), signal.SIGKILL)
    assert supervised.wait() == 1
    assert supervised.said["state"] == "gave up"
    assert "ended with exit status 3" in supervised.said["why"]
    assert [item.command for item in supervised.left()] == []


@pytest.mark.parametrize("by", ["stop", "hand"])
def test_its_daemons_end_with_it(supervised: Supervised, by: str) -> None:
    start(supervised)
    if by == "stop":
        assert supervised.stop()["survivors"] == []
    else:
        os.kill(supervised.pid, signal.SIGTERM)
        assert supervised.wait() == 0
    assert supervised.left() == []
    assert supervised.lived(1)


def kill_raylet(supervised: Supervised) -> None:
    wait_until(lambda: up(supervised))
    os.kill(daemon(supervised, "raylet"), signal.SIGKILL)


def restarted(supervised: Supervised, restarts: int, in_a_row: int) -> bool:
    return up(supervised) and (supervised.said["restarts"], supervised.said["in_a_row"]) == (restarts, in_a_row)


def test_a_worker_whose_head_is_away_waits_for_it_and_counts_no_restart(supervised: Supervised) -> None:
    address = "127.9.8.7", free_port()
    with socket.create_server(address):
        start(supervised, f"--ray-head={address[0]}:{address[1]}", "--ray-head-host=gpu01", "--max=1", daemons="raylet")
    for lives in (1, 2, 3):
        kill_raylet(supervised)
        wait_until(lambda: "; waiting for gpu01 (Ray's head at" in supervised.said["why"])
        assert supervised.said["why"].startswith("lost its raylet, which was ended by SIGKILL")
        assert (supervised.said["state"], supervised.said["in_a_row"]) == ("restarting", 0)
        assert supervised.lived(lives)
        with socket.create_server(address):
            wait_until(partial(restarted, supervised, lives, 0))
    assert supervised.stop()["survivors"] == []


def test_the_restarts_of_a_worker_count_anew_once_it_has_joined_another_head(supervised: Supervised) -> None:
    """A head may be back before the worker leaves the one that is gone."""
    session = supervised.folder / "lives.session"
    session.write_text("session_2026-11-30_20-00-00_000001_7")
    with socket.create_server(("127.9.8.7", 0)) as server:
        head = "--ray-head={}:{}".format(*server.getsockname())
        start(supervised, head, "--ray-head-host=gpu01", "--max=1", daemons="raylet")
        for minute in (1, 2, 3):
            session.write_text(f"session_2026-11-30_20-0{minute}-00_000001_7")
            kill_raylet(supervised)
            wait_until(partial(restarted, supervised, minute, 0))
        kill_raylet(supervised)
        wait_until(partial(restarted, supervised, 4, 1))
        kill_raylet(supervised)
        assert supervised.wait() == 1
    assert "gave up after 1 restart" in supervised.said["why"]
    assert supervised.said["restarts"] == 4


def test_a_worker_that_waits_for_its_head_is_stopped(supervised: Supervised) -> None:
    address = "127.9.8.7", free_port()
    start(supervised, f"--ray-head={address[0]}:{address[1]}", "--ray-head-host=gpu01", daemons="raylet")
    kill_raylet(supervised)
    wait_until(lambda: "waiting for gpu01" in supervised.said["why"])
    assert supervised.stop()["survivors"] == []
    assert (supervised.left(), supervised.lived(1)) == ([], True)
