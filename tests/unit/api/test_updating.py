"""`update`, `rollback` and `--resume` over hosts that are functions: what they refuse, change, and put back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api import ChangeFailedError, ChangeOptions
from flagscale_deploy.errors import CheckError, DeployError, FaultsError, LockedError
from flagscale_deploy.inventory.model import Host
from tests.fakes import Output
from tests.unit.api.changing_world import LONGER, OPTIONS, QUICK, ChangingWorld

ALONE = "deploy.models.qwen.num_replicas=1"
CHANGE = {
    "run_id": "20991231T235959Z-abcdef", "operator": "bob@ops", "base": "", "groups": ["qwen/0"], "step": "stop",
    "done": [], "secrets": False, "at": 1.0,
}  # fmt: skip


class Changing(ChangingWorld):
    """The same, with the commands typed."""

    def run(self, *overrides: str) -> str:
        """Run it, and return the id."""
        api.run(self.wanted(*overrides), OPTIONS)
        return str(self.records["gpu01"]["run_id"])

    def update(self, *overrides: str, how: ChangeOptions = QUICK, **options: Any) -> api.ChangeResult:
        return api.update(self.wanted(*overrides, **options), OPTIONS, how, lock_wait=0)

    def rollback(self, to: str | None = None, **options: Any) -> api.ChangeResult:
        return api.rollback(self.named(**options), to, OPTIONS, QUICK)

    def resume(self, **options: Any) -> api.ChangeResult:
        return api.resume(self.named(**options), OPTIONS, QUICK)

    def leave(self, **change: Any) -> None:
        """Leave a change that is not over in all records."""
        for record in self.records.values():
            record["change"] = {**CHANGE, "base": record["run_id"], **change}

    def does_not_start(self, *hosts: str) -> None:
        """Let the next engine on each of these hosts fail."""
        failing = {*hosts}

        def watch(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
            if host.name in failing:
                failing.discard(host.name)
                return [{"lines": ["ValueError: no such tokenizer"]}, {"exit": 1}]
            return list(self.watched)

        self.watch = watch

    def did(self, module: str) -> list[str]:
        """Return on which hosts a program ran."""
        return [call.host for call in self.calls if call.module == module]

    def note(self, event: str, **more: Any) -> None:
        """Add an event to the head's history."""
        place = {"schema": 1, "deployment": "qwen", "host": "gpu01", "server": "", "reason": "", "time": 50.0}
        self.events["gpu01"].append({**place, "event": event, **more})

    def noted(self, host: str = "gpu01") -> list[str]:
        """Return the ends of changes in a host's history."""
        return [event["event"] for event in self.events[host] if event["event"] not in ("run", "ready")]

    @property
    def configurations(self) -> set[Any]:
        return {record.get("configuration", record["run_id"]) for record in self.records.values()}

    @property
    def changes(self) -> list[Any]:
        return [record["change"] for record in self.records.values() if "change" in record]


@pytest.fixture
def world(desk: Path) -> Changing:
    return Changing(desk)


def refusal(error: type[DeployError], act: Any, *args: Any, **options: Any) -> str:
    """Return what is said where nothing is changed."""
    with pytest.raises(error) as raised:
        act(*args, **options)
    return str(raised.value)


def test_groups_are_changed_one_after_the_other_and_a_rollback_goes_back(world: Changing) -> None:
    first = world.run()
    result = world.update(LONGER)
    assert world.did("stop_group") == ["gpu01", "gpu02"]
    assert result.status is not None
    assert (result.status.state, world.configurations, world.changes) == ("ready", {result.change_id}, [])
    assert "max-model-len" in world.kept["gpu02"][result.change_id]
    back = world.rollback()
    assert world.configurations == {back.change_id}
    assert world.noted() == world.noted("gpu02") == ["updated", "updated"]
    assert f"back to {first}" in world.events["gpu01"][-1]["reason"]
    assert {record["run_id"] for record in world.records.values()} == {first}


def test_the_same_again_changes_nothing(world: Changing) -> None:
    world.run()
    result = world.update()
    assert (result.change_id, result.status, world.did("change_record")) == ("", None, [])


@pytest.mark.parametrize("command", ["update", "resume", "rollback"])
def test_what_does_not_run_is_not_changed(world: Changing, command: str) -> None:
    assert refusal(CheckError, getattr(world, command)) == "qwen: it does not run\n    → start it with `run`"


@pytest.mark.parametrize("command", ["update", "resume", "rollback"])
def test_a_lock_of_somebody_else_is_respected(world: Changing, command: str) -> None:
    world.run()
    world.holder = {"who": "bob@ops", "what": "update", "since": "09:00", "from": "10.0.0.9", "pid": 7}
    request = world.wanted() if command == "update" else world.named()
    act = getattr(api, command)
    assert "bob@ops" in refusal(LockedError, act, request, lock_wait=0.0)
    assert world.did("change_record") == []


def test_a_change_that_is_not_over_comes_first(world: Changing) -> None:
    world.run()
    world.leave()
    text = refusal(CheckError, world.update, LONGER)
    assert text.startswith(
        f"qwen: change {CHANGE['run_id']} of bob@ops is not over\n    → finish it: flagscale-deploy "
    )
    assert "--resume; or put it back with `rollback`" in text


def test_what_hosts_do_not_keep_is_neither_changed_nor_gone_back_to(world: Changing) -> None:
    first = world.run()
    world.update(LONGER)
    kept = copy.deepcopy(world.kept)
    del world.kept["gpu02"][first]
    assert "gpu01 keeps it, and no other host does" in refusal(CheckError, world.rollback)
    world.kept["gpu02"][first] = kept["gpu02"][first].replace("/models/qwen", "/models/evil")
    assert "keeps something else of it than" in refusal(CheckError, world.rollback)
    world.kept = {name: {} for name in world.kept}
    assert "stop, then run" in refusal(CheckError, world.update, ALONE)


def test_nothing_before_and_what_nobody_knows_is_not_gone_back_to(world: Changing) -> None:
    world.run()
    assert refusal(CheckError, world.rollback).startswith("qwen: nothing served before this\n")
    assert "20201231" in refusal(FaultsError, world.rollback, "20201231T000000Z-abcdef")


def test_an_outage_is_told_with_the_time_of_the_last_start_and_has_to_be_allowed(world: Changing) -> None:
    world.run(ALONE)
    text = refusal(CheckError, world.update, ALONE, LONGER)
    assert "nothing would serve qwen while qwen/0 restarts, for about 30s by the last start" in text
    assert "--allow-downtime" in text
    assert world.did("stop_group") == []
    world.update(ALONE, LONGER, how=ChangeOptions(watch_for=0.01, allow_downtime=True))
    assert world.did("stop_group") == ["gpu01"]


def test_both_at_once_are_an_outage(world: Changing) -> None:
    world.run()
    both = ChangeOptions(max_unavailable=2, watch_for=0.01)
    assert "nothing would serve qwen while qwen/0, qwen/1 restart, for about 30s" in refusal(
        CheckError, world.update, LONGER, how=both
    )


def test_the_outage_of_a_router_is_told_by_its_last_start_alone(world: Changing) -> None:
    world.run()
    world.note("ready", run_id=world.records["gpu01"]["run_id"], server="qwen/router", time=40.0)
    policy, text = "deploy.router.policy=random", "qwen: nothing would serve qwen while qwen/router restarts"
    assert refusal(CheckError, world.update, policy) == f"{text}\n    → allow it with --allow-downtime"
    world.note("ready", run_id="an update of it", server="qwen/router", took=4.0)
    assert refusal(CheckError, world.update, policy).startswith(f"{text}, for about 4s by the last start\n")


def test_more_groups_need_room(world: Changing) -> None:
    world.run()
    text = refusal(CheckError, world.update, LONGER, how=ChangeOptions(surge=1, watch_for=0.01))
    assert text.startswith("qwen: there is no room for 1 more of what is changed")


def test_a_group_that_does_not_start_is_put_back_and_the_cause_is_told(world: Changing) -> None:
    first = world.run()
    world.does_not_start("gpu02")
    with pytest.raises(ChangeFailedError) as raised:
        world.update(LONGER)
    assert (raised.value.put_back, raised.value.exit_code) == (True, 5)
    assert "no such tokenizer" in str(raised.value)
    assert str(raised.value).endswith("what was changed is put back")
    assert (world.configurations, world.changes, world.noted()) == ({first}, [], ["put back"])
    stopped = ["gpu01", "gpu02", "gpu02"]  # qwen/1 once more where its start had failed
    assert world.did("stop_group") == [*stopped, "gpu02", "gpu01"], "what serves is put back last"


@pytest.mark.parametrize(("ends", "event"), [("resume", "updated"), ("rollback", "put back")])
def test_what_is_kept_on_failure_is_finished_or_put_back(world: Changing, ends: str, event: str) -> None:
    first = world.run()
    world.does_not_start("gpu02")
    with pytest.raises(ChangeFailedError) as raised:
        world.update(LONGER, how=ChangeOptions(watch_for=0.01, keep_on_failure=True))
    assert not raised.value.put_back
    assert {str((change["groups"], change["step"], change["done"])) for change in world.changes} == {
        "(['qwen/1'], 'start', ['qwen/0'])"
    }
    getattr(world, ends)()
    wanted = first if ends == "rollback" else raised.value.change_id
    assert (world.configurations, world.changes) == ({wanted}, [])
    assert world.noted() == ["update failed", event]


def test_a_start_that_is_interrupted_is_put_back(world: Changing) -> None:
    first = world.run()

    def interrupted(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        world.programs["drain"] = world.drain
        raise KeyboardInterrupt

    world.programs["drain"] = interrupted
    with pytest.raises(ChangeFailedError, match="interrupted"):
        world.update(LONGER)
    assert (world.configurations, world.changes, world.did("stop_group")) == ({first}, [], [])


def test_there_is_nothing_to_finish(world: Changing) -> None:
    world.run()
    assert "there is no change of it that is not over" in refusal(CheckError, world.resume)


@pytest.mark.parametrize("ends", ["resume", "rollback"])
def test_a_group_that_was_left_in_the_middle_comes_first(world: Changing, ends: str) -> None:
    """The other one serves meanwhile."""
    first = world.run()
    changed = world.update(LONGER).change_id
    world.rollback()
    world.calls.clear()
    world.leave(run_id=changed, base=first, groups=["qwen/1"], step="start", done=["qwen/0"] * (ends == "rollback"))
    getattr(world, ends)()
    assert world.did("stop_group") == ["gpu02", "gpu01"]


def test_secrets_that_nobody_keeps_cannot_be_given_by_a_resume(world: Changing) -> None:
    first = world.run()
    changed = world.update(LONGER).change_id
    world.leave(run_id=changed, base=first, secrets=True)
    assert "it gives hosts other secrets, whose values are not kept" in refusal(CheckError, world.resume)


def test_ray_is_not_changed_under_what_runs(world: Changing) -> None:
    world.run()
    text = refusal(CheckError, world.update, "deploy.ray=always")
    assert "Ray itself would change" in text
    assert world.did("change_record") == []


def test_a_record_may_lack_any_of_its_keys(world: Changing) -> None:
    """A host may be of another version, or lie; this ends in words."""
    world.run()
    records = copy.deepcopy(world.records)
    for key in records["gpu01"]:
        world.records = copy.deepcopy(records)
        for record in world.records.values():
            del record[key]
        for act in (world.update, world.rollback):
            with contextlib.suppress(DeployError):
                act(*([LONGER] if act == world.update else []))
