"""The supervisors of a group of ranks, each with the state directory of its own host: all end and start together."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from flagscale_deploy.remote.supervisor.group import token_of
from flagscale_deploy.remote.supervisor.membership import token_file
from tests.component.remote.living import Home, runs, wait_until
from tests.component.remote.supervisor.supervised import SCRIPT, Supervised
from tests.component.remote.supervisor.test_hang import ENGINE as SERVING_ENGINE
from tests.component.remote.supervisor.test_supervise import free_port

HOSTS = ("gpu01", "gpu02", "gpu03")
ALL = os.environ.get("FSD_FAULTS") == "all"
STOPS = 200 if ALL else 3
WITHOUT_SUPERVISOR = (
    r"; waiting for its group's leader on gpu01 \(silent \d+ s, its supervisor does not run\); stop and"
)


class Group:
    """Three ranks, the leader first."""

    def __init__(self, folder: Path, deployment: str, hosts: tuple[str, ...] = HOSTS) -> None:
        self.ranks = []
        self.port = free_port()
        for number, name in enumerate(hosts):
            (folder / name).mkdir(parents=True)
            home = Home(folder, deployment, name)
            (home.state / token_file(SCRIPT)).write_bytes(token_of(b"the token of this group", number) + b"\n")
            self.ranks.append(Supervised(home, folder / name))

    @property
    def leader(self) -> Supervised:
        return self.ranks[0]

    def start_rank(self, number: int, *options: str, **env: str) -> None:
        hosts = f"--group-hosts={','.join(HOSTS)}", f"--group-rank={number}", f"--group-port={self.port}"
        peers = "--group-address=127.0.0.1", "--group-peers=127.0.0.1"
        self.ranks[number].start(*hosts, *peers, *options, ready=False, **env)

    def start(self, *options: str, **env: str) -> Group:
        """Start all, and wait until the leader's permit holds for all."""
        for number in range(len(HOSTS)):
            self.start_rank(number, *options, **env)
        self.leader.files.permit()
        wait_until(lambda: all(rank.said.get("healthy") for rank in self.ranks))
        return self

    def lived(self, times: int) -> Callable[[], bool]:
        return lambda: all(
            rank.lived(times) and rank.said.get("state") == "running" and rank.said.get("healthy")
            for rank in self.ranks
        )

    @property
    def generations(self) -> set[int | None]:
        return {rank.said.get("generation") for rank in self.ranks}

    def stop(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda rank: rank.stop(), self.ranks))

    def end(self) -> None:
        for process in self.leader.left():
            os.kill(process.pid, signal.SIGKILL)
        for rank in self.ranks:
            if rank.process is not None:
                rank.process.wait(20)


@pytest.fixture
def make(tmp_path: Path, deployment: str) -> Iterator[Callable[[], Group]]:
    groups: list[Group] = []

    def made() -> Group:
        groups.append(Group(tmp_path / f"group{len(groups)}", f"{deployment}-{len(groups)}"))
        return groups[-1]

    yield made
    for group in groups:
        group.end()


@pytest.fixture
def group(make: Callable[[], Group]) -> Group:
    return make()


@pytest.mark.parametrize("number", [0, 2])
def test_where_one_rank_ends_all_start_again_together(group: Group, number: int) -> None:
    group.start()
    first = [rank.lives[-1] for rank in group.ranks]
    group.ranks[number].kill()
    wait_until(group.lived(2))
    assert group.generations == {2}
    assert [rank.said["restarts"] for rank in group.ranks] == [1, 1, 1]
    assert not {*first} & {process.pid for process in group.leader.left()}
    reason = "was ended by SIGKILL" if number == 0 else f"rank {number} on {HOSTS[number]} was ended by SIGKILL"
    assert f"{reason} after" in group.leader.told if number == 0 else f"m/0 {reason}" in group.leader.told
    assert group.leader.told.count("; restart 1 of 5 in 0.05 s") == 1
    for rank in group.ranks[1:]:
        assert rank.told.count("; restarts with its group") == 1


def test_every_rank_keeps_its_evidence_of_a_hang(group: Group) -> None:
    for wish in ("busy", "still"):
        (group.leader.folder / wish).touch()
    port = free_port()
    words = f"--health=http://127.0.0.1:{port}/health", "--hang=3", "--model=m"
    group.start_rank(0, *words, engine=SERVING_ENGINE, PORT=str(port))
    for number in (1, 2):
        group.start_rank(number)
    group.leader.files.permit()
    wait_until(group.lived(2), 90)
    for rank in group.ranks:
        (folder,) = rank.home.state.glob("evidence/*")
        assert folder.name == rank.said["evidence"]
        assert "no token since" in (folder / "problem.txt").read_text()
        assert (folder / f"process-{rank.lives[0]}.txt").exists()
    assert group.leader.said["in_a_row"] == 1


def test_a_member_is_restarted_no_faster_than_by_itself_where_its_leader_does_not_give_up(group: Group) -> None:
    """Else a leader that was taken over could fill the disk of another host with logs of starts."""
    group.start_rank(0, "--max=9")
    for rank in (1, 2):
        group.start_rank(rank, "--max=1", "--first=2", "--ceiling=2")
    group.leader.files.permit()
    for number in range(1, 4):
        wait_until(group.lived(number))
        if number < 3:
            group.ranks[1].kill()
    ended, healthy = (
        [
            datetime.fromisoformat(when)
            for when in re.findall(rf"flagscale-deploy (.{{19}}): m/0 .*{text}", group.ranks[1].told)
        ]
        for text in ("restarts with its group", "is healthy again")
    )
    assert len(ended) == len(healthy) == 2
    assert (healthy[1] - ended[1]).total_seconds() >= 1


def test_two_that_end_at_the_same_time_cost_one_restart(group: Group) -> None:
    group.start()
    for rank in group.ranks[1:]:
        rank.kill()
    wait_until(group.lived(2))
    assert group.generations == {2}
    assert group.leader.said["in_a_row"] == 1


def test_a_host_that_is_silent_is_waited_for_and_the_group_starts_when_it_is_back(group: Group) -> None:
    group.start("--lost=2")
    silent = group.ranks[1]
    os.kill(silent.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "waiting for gpu02 (silent" in group.leader.said["why"], 60)
        assert group.leader.said["state"] == "restarting"
        assert "rank 1 on gpu02 is lost: silent for " in group.leader.told
        assert group.leader.lived(1)
        assert group.ranks[2].lived(1)
    finally:
        os.kill(silent.pid, signal.SIGCONT)
    wait_until(group.lived(2), 60)
    assert group.leader.said["in_a_row"] == 1


def test_whoever_takes_the_leaders_port_ends_no_group_that_is_well(group: Group) -> None:
    """Any user of the leader's host may, before it listens."""
    with socket.create_server(("127.0.0.1", group.port)):
        for number in range(len(HOSTS)):
            group.start_rank(number, "--lost=2")
        group.leader.files.permit()
        wait_until(lambda: bool(group.leader.said.get("healthy")) and all(rank.lives for rank in group.ranks))
        wait_until(lambda: "the group's other ranks cannot report" in group.leader.told)
        time.sleep(4)
        assert [len(rank.lives) for rank in group.ranks] == [1, 1, 1]
    wait_until(lambda: all(rank.said.get("healthy") for rank in group.ranks))
    group.ranks[1].kill()
    wait_until(group.lived(2), 60)


def test_who_hears_nothing_of_the_leader_ends_its_own_and_starts_with_it_again(group: Group) -> None:
    group.start("--lost=2")
    os.kill(group.leader.pid, signal.SIGSTOP)
    try:
        followers = group.ranks[1:]
        wait_until(lambda: all("waiting for its group's leader on gpu01" in rank.said["why"] for rank in followers), 60)
        for rank in followers:
            assert "its group's leader on gpu01 is lost: silent for " in rank.told
            assert rank.said["state"] == "restarting"
    finally:
        os.kill(group.leader.pid, signal.SIGCONT)
    wait_until(lambda: len(group.generations) == 1 and all(len(rank.lives) > 1 for rank in group.ranks), 60)
    wait_until(lambda: all(rank.said.get("state") == "running" for rank in group.ranks), 60)


def test_where_the_leaders_supervisor_alone_is_killed_the_others_end_their_ranks_and_ask_for_a_person(
    group: Group,
) -> None:
    """Its server lives on and would wait for them without end; nobody restarts it."""
    for rank in group.ranks:
        heard = rank.folder / "heard"
        (rank.home.state / "scripts/notify.sh").write_text(f"read -r event; printf '%s\\n' \"$event\" >> {heard}")
    group.start("--lost=2", "--notify=1")
    os.kill(group.leader.pid, signal.SIGKILL)
    group.leader.wait()
    followers = group.ranks[1:]
    wait_until(lambda: all("; stop and run again" in rank.said["why"] for rank in followers))
    wait_until(lambda: [waiting_events(rank.folder / "heard") for rank in followers] == [1, 1])
    for rank in followers:
        assert rank.said["state"] == "restarting"
        assert re.search(WITHOUT_SUPERVISOR, rank.said["why"])
        assert not runs(rank.lives[-1])
        assert waiting_events(rank.home.state / "history.jsonl") == 1
    assert runs(group.leader.lives[-1])
    group.stop()
    assert group.leader.left() == []


def waiting_events(path: Path) -> int:
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event["event"] for event in events].count("waiting")


@pytest.mark.parametrize("number", range(2))
def test_a_host_that_was_rebooted_rejoins_its_group(group: Group, number: int) -> None:
    group.start("--lost=60")
    rank = group.ranks[number]
    os.kill(rank.pid, signal.SIGKILL)
    rank.kill()
    rank.wait()
    group.start_rank(number, "--lost=60")
    wait_until(group.lived(2), 60)
    assert group.generations == {2}
    assert f"rank {number} on {HOSTS[number]} was started again: its host was rebooted" in "".join(
        other.told for other in group.ranks if other is not rank
    )


def test_all_are_given_up_together(group: Group) -> None:
    group.start("--max=1", LIVES="1")
    group.ranks[2].kill()
    assert [rank.wait() for rank in group.ranks] == [1, 1, 1]
    assert {rank.said["state"] for rank in group.ranks} == {"gave up"}
    assert "gave up after 1 restart" in group.ranks[1].said["why"]


def test_before_the_group_was_ready_nothing_is_restarted(group: Group) -> None:
    for number in range(len(HOSTS)):
        group.start_rank(number)
    wait_until(lambda: all(rank.lives for rank in group.ranks))
    group.ranks[1].kill()
    assert group.ranks[1].wait() == 128 + signal.SIGKILL
    assert "restart" not in group.ranks[1].told
    assert [len(rank.lives) for rank in group.ranks] == [1, 1, 1]


def test_stop_wins_at_every_moment_of_a_restart(make: Callable[[], Group]) -> None:
    choice = random.Random(20261130)
    for _ in range(STOPS):
        group = make().start("--first=0.5", "--ceiling=0.5")
        group.ranks[choice.randrange(3)].kill()
        time.sleep(choice.uniform(0, 2.5))
        group.stop()
        lives = [len(rank.lives) for rank in group.ranks]
        assert group.leader.left() == []
        assert all(rank.ended for rank in group.ranks)
        assert [len(rank.lives) for rank in group.ranks] == lives


def test_without_the_token_it_does_not_start(group: Group) -> None:
    (group.leader.home.state / token_file(SCRIPT)).unlink()
    group.start_rank(0)
    assert group.leader.wait() == 1
    assert "the group of m/0: " in group.leader.told
    assert group.leader.lives == []
