"""A rank of a host that is lost goes to a spare, whose GPUs are free; the host that comes back is the spare then."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.system import gpus
from tests.component.remote.living import Home, wait_until
from tests.component.remote.supervisor.supervised import Supervised
from tests.component.remote.supervisor.test_group import HOSTS, Group

IDLE = {"index": "0", "uuid": "GPU-0", "name": "H100", "memory.total": "81559", "memory.used": "4"}
SMI = f"""#!/bin/sh
case "$*" in
  *query-gpu*) echo "{", ".join(IDLE.get(name, "[N/A]") for name in gpus.FIELDS + gpus.EXTRAS)}" ;;
  *) cat "$BUSY" ;;
esac
"""
OPTIONS = "--lost=6", "--max=50"
"""A member that reports once a second is not lost on a busy machine."""


class WithSpare(Group):
    """A driver, two followers and a spare. Who is lost is replaced after one second more, not after ten."""

    def __init__(self, folder: Path, deployment: str) -> None:
        super().__init__(folder, deployment, (*HOSTS, "gpu04"))
        self.busy = folder / "busy"
        self.busy.write_text("")
        (folder / "nvidia-smi").write_text(SMI)
        (folder / "nvidia-smi").chmod(0o755)
        self._env = {"BUSY": str(self.busy), "PATH": f"{folder}:{os.environ['PATH']}"}
        leading = self.leader.home.state / "supervisor/flagscale_deploy/remote/supervisor/leader.py"
        text = leading.read_text()
        assert "ENDS_SECONDS = 10.0" in text
        leading.write_text(text.replace("ENDS_SECONDS = 10.0", "ENDS_SECONDS = 1.0"))

    @property
    def spare(self) -> Supervised:
        return self.ranks[3]

    def start_all(self) -> WithSpare:
        words = json.dumps({1: ["--node-rank=1"], 2: ["--node-rank=2"]})
        moved = "--group-spares=gpu04", f"--rank-words={words}", "--gpus=0"
        for number in range(4):
            self.start_rank(number, *OPTIONS, *moved, **self._env)
        self.leader.files.permit()
        wait_until(lambda: all(rank.said.get("healthy") for rank in self.ranks[:3]))
        wait_until(lambda: self.spare.said.get("why") == "stands by")
        return self

    def serves(self, *numbers: int) -> bool:
        states = [self.ranks[number].said for number in numbers]
        running = all(state.get("state") == "running" and state.get("healthy") for state in states)
        return running and len({state.get("generation") for state in states}) == 1


@pytest.fixture
def group(tmp_path: Path, deployment: str) -> Iterator[WithSpare]:
    group = WithSpare(tmp_path / "group", deployment)
    yield group
    group.end()


def words_of(rank: Supervised) -> list[str]:
    return Path(f"/proc/{rank.lives[-1]}/cmdline").read_text().split("\0")


def held(home: Home) -> list[int]:
    return record.load(home.state / "record.json").get("gpus", [])


def test_a_rank_whose_host_is_lost_goes_to_the_spare_and_the_host_that_comes_back_is_the_spare(
    group: WithSpare,
) -> None:
    group.busy.write_text("GPU-0, 7, 4096\n")
    group.start_all()
    assert group.spare.lives == []
    lost = group.ranks[1]
    os.kill(lost.pid, signal.SIGSTOP)
    try:
        unfit = "no spare can take its place (gpu04: GPU 0 is in use: "
        wait_until(lambda: unfit in group.leader.said["why"], 120)
        assert group.spare.lives == []
        group.busy.write_text("")
        wait_until(lambda: group.serves(0, 2, 3) and bool(group.spare.lives), 120)
        assert "rank 1 moves from gpu02 to gpu04" in group.leader.told
        assert group.leader.said["hosts"] == ["gpu01", "gpu04", "gpu03"]
        assert "--node-rank=1" in words_of(group.spare)
        assert held(group.spare.home) == [0]
    finally:
        os.kill(lost.pid, signal.SIGCONT)
    wait_until(lambda: lost.said.get("state") == "spare", 120)
    assert not {*lost.lives} & {process.pid for process in group.leader.left()}
    group.ranks[2].kill()
    wait_until(lambda: group.serves(0, 2, 3) and len(group.spare.lives) == 2, 120)
    assert len(lost.lives) == 1
    group.stop()
    assert group.leader.left() == []
    assert all(rank.ended for rank in group.ranks)


def test_stop_ends_a_spare_that_stands_by_and_it_starts_nothing_then(group: WithSpare) -> None:
    group.start_all()
    os.kill(group.spare.pid, signal.SIGTERM)
    assert group.spare.wait() == 0
    assert group.spare.lives == []
    group.ranks[1].kill()
    wait_until(lambda: group.serves(0, 1, 2) and len(group.ranks[1].lives) == 2, 120)
    group.ranks.pop()
    group.stop()
    assert group.leader.left() == []
