"""Whenever the operator of a change dies, also of one that is put back, another one finishes it or puts it back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.errors import CheckError, DeployError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.deployment import before_change
from tests.fakes import Output
from tests.unit.api.changing_world import LONGER, OPTIONS, QUICK, ChangingWorld

EVERYTHING = os.environ.get("FSD_FAULTS") == "all"
RECORDS_CHANGED = 30
"""How often records are changed in an update of both groups, on both hosts together."""


class Mortal(ChangingWorld):
    """The same with the files of each host, of which an operator may die. `lengths` is what each group runs with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lengths: dict[str, str] = {}
        self.left: int | None = None
        """How often records are changed until the operator dies."""

    def change_record(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if self.left is not None:
            self.left -= 1
        self._live(host)
        before_change.carry_out(self.folder / host.name, args.get("before"), args.get("scripts", []))
        self._write(host, args.get("files", {}))
        return super().change_record(host, args)

    def launch(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self._live(host)
        self._write(host, args["files"])
        script = self.folder / host.name / "scripts" / args["script"]
        self.lengths[args["script"]] = "longer" if "4096" in script.read_text() else "short"
        return super().launch(host, args)

    def stop_group(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self._live(host)
        for script in args["scripts"]:
            self.lengths.pop(script, None)
        return super().stop_group(host, args)

    def _live(self, host: Host) -> None:
        """Raise UnreachableError where the operator has died: nothing of theirs reaches a host any more."""
        if self.left is not None and self.left < 0:
            raise UnreachableError(host.name, "the operator died")

    def _write(self, host: Host, files: dict[str, Any]) -> None:
        for name, (text, _mode) in files.items():
            path = self.folder / host.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def dies(self, moment: int, command: str) -> bool:
        """Type a command whose operator dies before records are changed once more; whether that came before its end."""
        self.left = moment
        try:
            self.type(command)
        except DeployError:
            assert self.left < 0
            return True
        finally:
            self.left = None
        return False

    def type(self, command: str) -> None:
        if command == "update":
            api.update(self.wanted(LONGER), OPTIONS, QUICK)
        elif command == "resume":
            api.resume(self.named(), OPTIONS, QUICK)
        else:
            api.rollback(self.named(), None, OPTIONS, QUICK)

    @property
    def is_kept_by_all(self) -> bool:
        """Return whether each host has the configuration that is wanted."""
        return all(self.records["gpu01"]["change"]["run_id"] in kept for kept in self.kept.values())

    @property
    def engines(self) -> set[str]:
        """Return what the groups run with."""
        return {self.lengths.get(f"vllm_serve_qwen_{number}.sh", "nothing") for number in range(2)}


@pytest.fixture
def world(desk: Path) -> Mortal:
    """Provide hosts with the deployment."""
    world = Mortal(desk)
    api.run(world.wanted(), OPTIONS)
    return world


def moments(number: int) -> list[int]:
    """Return all moments with FSD_FAULTS=all, else some of the day; FSD_FAULTS_SEED repeats those of a day."""
    dice = Random(os.environ.get("FSD_FAULTS_SEED") or time.strftime("%Y%m%d", time.gmtime()))
    return [*range(RECORDS_CHANGED)] if EVERYTHING else sorted(dice.sample(range(RECORDS_CHANGED), number))


def end(world: Mortal, command: str) -> None:
    """End a change that is not over; where its end is noted on some hosts, it has to be finished first."""
    if not world.is_kept_by_all:
        with pytest.raises(CheckError, match="nothing of it is changed yet"):
            world.type("resume")
        command = "rollback"
    touched = [*world.records["gpu01"]["change"]["done"], *world.records["gpu01"]["change"]["groups"]]
    if command == "rollback" and touched and any("change" not in record for record in world.records.values()):
        with pytest.raises(CheckError, match="its end is noted on some hosts"):
            world.type(command)
        world.type("resume")
    world.type(command)
    assert not any("change" in record for record in world.records.values())
    assert world.engines == {"short" if command == "rollback" else "longer"}


@pytest.mark.parametrize("command", ["resume", "rollback"])
@pytest.mark.parametrize("moment", moments(1))
def test_an_update_whose_operator_dies_is_finished_or_put_back(world: Mortal, moment: int, command: str) -> None:
    if world.dies(moment, "update") and "change" in world.records["gpu01"]:
        end(world, command)
    else:
        assert len(world.engines) == 1


@pytest.mark.parametrize("command", ["resume", "rollback"])
@pytest.mark.parametrize("moment", moments(1))
def test_a_way_back_whose_operator_dies_is_finished_or_put_back(world: Mortal, moment: int, command: str) -> None:
    assert world.dies(20, "update"), "one group is changed, and the other one being changed"
    if world.dies(moment, "rollback"):
        if "change" in world.records["gpu01"]:
            end(world, command)
    else:
        assert world.engines == {"short"}
