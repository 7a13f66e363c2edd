"""A rank of a host that is lost goes to a spare: what the leader and the spare do, by a clock that tests turn."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment.restart_permits import Files
from flagscale_deploy.remote.messages.group import MemberState, Wish
from flagscale_deploy.remote.supervisor.follower import Follower
from flagscale_deploy.remote.supervisor.leader import Leader
from flagscale_deploy.remote.supervisor.spare import Spare
from tests.unit.remote.supervisor.test_group import LOST, Clock, both, report, wish
from tests.unit.remote.supervisor.test_group import clock as clock
from tests.unit.remote.supervisor.test_group import files as files
from tests.unit.remote.supervisor.test_group import leader as leader

SPARE = ("gpu01", "gpu02", "gpu03", "gpu04")
"""The last of them is a spare."""


@pytest.fixture
def with_spare(clock: Clock, files: Files) -> Leader:
    leader = Leader(SPARE, files, LOST, clock=clock)
    leader.keep_spares(3, [])
    both(leader, "running", 1)
    return leader


def lose(leader: Leader, clock: Clock, seconds: float, spare: MemberState = "down", why: str = "") -> Wish:
    """Let gpu02 be silent until the group has ended, gpu03 waits and the spare has looked at itself."""
    leader.note_end("rank 1 on gpu02 is lost: silent for 61 s")
    clock.now += seconds
    report(leader, 2, "down")
    return report(leader, 3, spare, why=why, spare=True)


def test_a_rank_goes_to_a_spare_once_its_host_has_had_the_time_to_end_it(with_spare: Leader, clock: Clock) -> None:
    assert report(with_spare, 3, "spare", spare=True)["rank"] == 0
    assert lose(with_spare, clock, LOST + 9)["rank"] == 0
    assert with_spare.missing() == "waiting for gpu02 (silent 65 s)"
    clock.now += 2
    report(with_spare, 2, "down")
    assert report(with_spare, 3, "down", spare=True)["rank"] == 0
    assert with_spare.missing() == ""
    assert with_spare.hosts == ["gpu01", "gpu04", "gpu03"]
    with_spare.begin()
    assert [report(with_spare, number, "down")["rank"] for number in (2, 3)] == [2, 1]
    for number in (2, 3):
        report(with_spare, number, "running", 2)
    assert with_spare.problem() == ""


def test_a_host_that_comes_back_is_the_spare_and_neither_ends_nor_delays_the_group(
    with_spare: Leader, clock: Clock
) -> None:
    lose(with_spare, clock, LOST + 11)
    assert with_spare.missing() == ""
    wish = report(with_spare, 1, "running", 1)
    assert (wish["rank"], wish["generation"]) == (0, 2)
    assert with_spare.missing() == "", "it is not waited for"
    with_spare.begin()
    for number in (2, 3):
        report(with_spare, number, "running", 2)
    for state in ("ended", "down", "gave up"):
        assert report(with_spare, 1, state)["rank"] == 0
    clock.now += 2 * LOST
    for number in (2, 3):
        report(with_spare, number, "running", 2)
    assert (with_spare.problem(), with_spare.over) == ("", "")


def test_no_spare_that_cannot_carry_a_rank_is_given_one_and_it_is_said_what_would_help(
    with_spare: Leader, clock: Clock
) -> None:
    lose(with_spare, clock, LOST + 21, "spare", "GPU 0 is in use: python (pid 7)")
    power = ": power gpu02 on, or stop and run without it"
    unfit = "waiting for gpu02 (silent 80 s); no spare can take its place "
    assert with_spare.missing() == unfit + "(gpu04: GPU 0 is in use: python (pid 7))" + power
    report(with_spare, 3, "down", spare=False)  # it has not heard yet that it is the spare: it has looked at nothing
    assert with_spare.missing() == unfit + "(gpu04: it is looked at)" + power
    clock.now += 30
    report(with_spare, 2, "down")
    assert "(gpu04: silent 30 s)" in with_spare.missing()
    report(with_spare, 3, "down", spare=True)
    assert with_spare.missing() == ""


def test_without_spares_a_lost_host_is_waited_for_and_it_is_said_what_would_help(leader: Leader, clock: Clock) -> None:
    leader.note_end("rank 1 on gpu02 is lost: silent for 61 s")
    clock.now += LOST + 11
    report(leader, 2, "down")
    why = "; no other host is given its rank without deploy.restart.spare: power gpu02 on, or stop and run without it"
    assert leader.missing() == "waiting for gpu02 (silent 70 s)" + why


def test_two_lost_hosts_need_two_spares(clock: Clock, files: Files) -> None:
    leader = Leader((*SPARE, "gpu05"), files, LOST, clock=clock)
    leader.keep_spares(3, [])
    leader.note_end("rank 1 on gpu02 is lost: silent for 61 s")
    clock.now += LOST + 11
    report(leader, 4, "down", spare=True)
    assert leader.missing().startswith("waiting for gpu03 (silent 70 s); no spare can take its place (gpu02: silent")
    report(leader, 3, "down", spare=True)
    assert leader.missing() == ""
    assert leader.hosts == ["gpu01", "gpu05", "gpu04"]


@pytest.mark.parametrize(
    ("hosts", "kept"),
    [
        (["gpu01", "gpu04", "gpu03"], True),
        ([], False),
        (["gpu01", "gpu04"], False),
        (["gpu01", "gpu09", "gpu03"], False),
        (["gpu04", "gpu02", "gpu03"], False),
        (["gpu01", "gpu04", "gpu04"], False),
    ],
)
def test_a_leader_that_was_rebooted_remembers_who_carries_which_rank(
    clock: Clock, files: Files, hosts: list[str], kept: bool
) -> None:
    leader = Leader(SPARE, files, LOST, clock=clock)
    leader.keep_spares(3, hosts)
    assert leader.hosts == (hosts if kept else list(SPARE[:3]))


class Claims(Spare):
    """A spare whose looks at itself the test decides on."""

    def __init__(self) -> None:
        self.why, self.log = "", ""

    def command(self, words: Sequence[str], rank: int) -> list[str]:
        return [*words, f"--node-rank={rank}"]

    def has(self, rank: int) -> bool:
        return rank in (1, 2)

    def claim(self) -> str:
        self.log += "claim "
        return self.why

    def release(self) -> None:
        self.log += "release "


def test_a_spare_claims_its_gpus_while_its_leader_waits_and_gives_them_back_if_it_is_not_chosen(
    clock: Clock, files: Files
) -> None:
    follower, spare = Follower("gpu01", files, LOST, clock=clock), Claims()
    follower.keep_spare(spare, 0)
    assert follower.stands_by
    follower.hear(wish(rank=0))
    assert follower.missing() == "stands by"
    assert (follower.report["state"], spare.log) == ("spare", "release ")
    spare.why = "GPU 0 is in use: python (pid 7)"
    follower.hear(wish(rank=0, generation=2, run=False))
    assert follower.missing() == "stands by: GPU 0 is in use: python (pid 7)"
    assert (follower.report["state"], follower.report["why"]) == ("spare", spare.why)
    spare.why = ""
    assert follower.missing() == "stands by: GPU 0 is in use: python (pid 7)", "it looks every few seconds"
    clock.now += 5
    follower.hear(wish(rank=0, generation=2, run=False))
    assert follower.missing() == "stands by"
    assert (follower.report["state"], follower.report["spare"]) == ("down", True)
    follower.hear(wish(rank=0, generation=2))
    assert follower.missing() == "stands by"
    assert (follower.report["state"], spare.log) == ("spare", "release claim claim release ")


def test_a_spare_that_is_chosen_starts_the_rank_that_it_was_given(clock: Clock, files: Files) -> None:
    follower = Follower("gpu01", files, LOST, clock=clock)
    follower.keep_spare(Claims(), 0)
    follower.hear(wish(rank=0, generation=2, run=False))
    assert follower.missing() == "stands by"
    follower.hear(wish(rank=2, generation=2, run=False))
    assert not follower.stands_by
    assert (follower.report["state"], follower.report["spare"]) == ("down", False)
    assert follower.missing() == "waiting for its group's leader on gpu01 to start it"
    follower.hear(wish(rank=2, generation=2))
    assert follower.missing() == ""
    follower.hear(wish(rank=0, generation=3, run=False))  # it comes too late for this start, and ends it
    follower.begin()
    assert follower.command(["vllm"]) == ["vllm", "--node-rank=2"]
    assert (follower.generation, follower.problem()) == (2, "ends with its group: ")


def test_one_that_was_replaced_says_that_it_could_carry_a_rank_only_after_it_has_looked(
    clock: Clock, files: Files
) -> None:
    follower = Follower("gpu01", files, LOST, clock=clock)
    follower.keep_spare(Claims(), 1)
    assert not follower.stands_by
    follower.hear(wish())
    follower.note_end("its group's leader on gpu01 is lost: silent for 61 s")
    follower.note_down()
    assert (follower.report["state"], follower.report["spare"]) == ("down", False)
    follower.hear(wish(rank=0, generation=2, run=False))
    assert (follower.report["state"], follower.report["spare"]) == ("spare", True)
    assert follower.missing() == "stands by"
    assert (follower.report["state"], follower.report["spare"]) == ("down", True)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_spare_starts_no_rank_whose_gpus_it_has_not_claimed(clock: Clock, files: Files, rank: int) -> None:
    """Its leader may be another one than it was, and says at once that the rank runs."""
    follower, spare = Follower("gpu01", files, LOST, clock=clock), Claims()
    follower.keep_spare(spare, 0)
    spare.why = "GPU 0: deployment other has it"
    for generation in (2, 3):
        follower.hear(wish(rank=rank, generation=generation))
        assert follower.missing() == f"its group's leader on gpu01 gives it rank {rank}: {spare.why}"
        assert follower.missing()
    assert spare.log == "claim ", "it looks every few seconds"
    follower.begin()
    assert (follower.generation, follower.rank) == (1, 0)
    spare.why = ""
    clock.now += 5
    follower.hear(wish(rank=rank, generation=3))
    assert follower.missing() == ""
    follower.begin()
    assert (follower.command(["vllm"]), spare.log) == (["vllm", f"--node-rank={rank}"], "claim claim ")


@pytest.mark.parametrize("rank", [7, -3, 3, 1 << 40])
@pytest.mark.parametrize("first", [0, 1])
def test_no_leader_gives_a_rank_that_there_is_not(clock: Clock, files: Files, rank: int, first: int) -> None:
    follower = Follower("gpu01", files, LOST, clock=clock)
    follower.keep_spare(Claims(), first)
    follower.hear(wish(rank=rank, generation=2))
    assert follower.missing() == f"its group's leader on gpu01 gives it rank {rank}: there is no such rank"


def test_one_that_gave_its_gpus_back_claims_them_before_it_carries_a_rank_again(clock: Clock, files: Files) -> None:
    follower, spare = Follower("gpu01", files, LOST, clock=clock), Claims()
    follower.keep_spare(spare, 1)
    follower.hear(wish(rank=1, generation=2))
    assert (follower.missing(), spare.log) == ("", ""), "it holds them since its start"
    follower.begin()
    follower.hear(wish(rank=0, generation=3))
    assert follower.missing() == "stands by"
    follower.hear(wish(rank=1, generation=4))
    assert (follower.missing(), spare.log) == ("", "release claim ")


def options(path: Path, **changes: str) -> Namespace:
    words = json.dumps({1: ["--node-rank=1"], 2: ["--node-rank=2"]})
    whole = {"run": "r1", "gpus": "0,1", "model_path": "", "rank_words": words, **changes}
    return Namespace(state=path / ".flagscale-deploy/chat/gpu04", **whole)


def test_a_rank_has_its_own_words_in_the_command_line_whatever_the_script_has(tmp_path: Path) -> None:
    spare = Spare(options(tmp_path), holds=False)
    script = ["vllm", "serve", "m", "--node-rank=1", "--headless"]
    assert spare.command(script, 1) == ["vllm", "serve", "m", "--headless", "--node-rank=1"]
    assert spare.command(script, 2) == ["vllm", "serve", "m", "--headless", "--node-rank=2"]
    assert [rank for rank in range(-3, 9) if spare.has(rank)] == [1, 2]


def test_a_host_without_the_model_carries_no_rank(tmp_path: Path) -> None:
    spare = Spare(options(tmp_path, model_path=str(tmp_path / "models/Tiny")), holds=False)
    assert spare.claim() == f"there is no {tmp_path}/models/Tiny"
