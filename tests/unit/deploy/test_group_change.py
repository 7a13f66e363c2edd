"""One group of a deployment is changed, on hosts that are functions: what is asked of whom, in which order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.group_change import GroupChange, GroupUnwellError
from flagscale_deploy.deploy.open_change import open_change
from flagscale_deploy.deploy.readiness import InstanceFailedError
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.errors import CheckError, RemoteError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Redactor, Secret
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import HOSTS, Heard, answering
from tests.unit.plan.given import RUN, inventory, model, planned, seen, spec

SPEC = spec(model(tp=8, replicas=2), secret_env={"HF_TOKEN": Secret("hf_very_secret")})
PLAN = planned(inventory(*HOSTS), SPEC)
GROUP = PLAN.instances[1]
IDLE = {"idle": True, "requests": 0, "why": ""}


def inspected(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    record = {**record_of(PLAN, host.name, {}, ()), "run_id": RUN, "processes": []}
    yield {"record": record, "processes": [], "live": 1, "ranks": {}, "instances": {}, "ray": None}


def routed(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"workers": [], "problem": ""}


def drained(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield IDLE


def ended(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"ended": 2, "killed": 0, "survivors": [], "segments": 0}


def free(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"taken": []}


def ready(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"ready": True, "token": "x"}


NOTE: Any = {"run_id": "c1", "operator": "me@here", "base": RUN, "groups": [], "step": "", "done": [], "secrets": False}


class Bench:
    """A deployment of two replicas, of which the second is changed."""

    def __init__(self, **modules: Any) -> None:
        programs = {"inspect": inspected, "route": routed, "drain": drained, "stop_group": ended,
                    "change_record": free, "watch": ready, "reserve": free}  # fmt: skip
        self.heard = Heard()
        self.fleet = FakeFleet(answering(**{**programs, **modules}), HOSTS)

    def open(self, deployment: str = "qwen") -> GroupChange:
        return open_change(self.fleet, deployment, "gpu01", NOTE, self.heard)

    def change(self, folder: Path, plan: Any = PLAN, **more: Any) -> GroupChange:
        """Carry out all steps for the second group."""
        run = Run(plan, SPEC, self.fleet, RunFolder.make(str(folder), "c1", str), Redactor(), self.heard)
        change, names = self.open(), [GROUP.name]
        change.drain(names, 120.0)
        change.stop(names, 5.0)
        change.start(run, seen(*HOSTS), names, **{"secrets": False, **more})
        change.put_back(names, plan)
        change.mark_done(names)
        return change

    @property
    def acts(self) -> list[tuple[str, str]]:
        """What was done, and where; a note of a step is `note STEP`, once."""
        acts = []
        for call in self.fleet.calls:
            step = call.args["change"]["step"] or "done" if "change" in call.args else ""
            what = "join" if "join" in call.args else f"note {step}" if step else call.module
            acts.append((what, "" if call.module in ("change_record", "inspect") else call.host))
        return [act for act in dict.fromkeys(acts) if act[0] != "watch_ranks"]


def test_a_group_is_out_and_drained_before_it_is_stopped_and_back_after_its_token(tmp_path: Path) -> None:
    bench = Bench()
    bench.change(tmp_path)
    assert bench.acts == [
        ("inspect", ""),
        ("note drain", ""), ("route", "gpu01"), ("drain", "gpu02"),
        ("note stop", ""), ("stop_group", "gpu02"),
        ("note start", ""), ("join", ""), ("launch", "gpu02"), ("watch", "gpu02"),
        ("note return", ""), ("note done", ""),
    ]  # fmt: skip
    out, back = bench.fleet.sent("route")
    assert (out.args["remove"], out.args["add"]) == (["http://10.0.0.2:8000"], [])
    assert (back.args["remove"], back.args["add"]) == ([], ["http://10.0.0.2:8000"])
    assert {call.host for call in bench.fleet.sent("change_record")} == set(HOSTS)
    note = bench.fleet.sent("change_record")[0].args
    assert (note["run_id"], note["change"]["run_id"], note["change"]["groups"]) == (RUN, "c1", ["qwen/1"])


@pytest.mark.parametrize("secrets", [True, False])
def test_what_is_sent_to_start_a_group_is_its_own_and_leaves_rays_token(tmp_path: Path, secrets: bool) -> None:
    bench = Bench()
    bench.change(tmp_path, secrets=secrets)
    (launch,) = bench.fleet.sent("launch")
    assert launch.args["run_id"] == RUN
    assert "secrets/ray_token" not in launch.args["files"]
    assert launch.args["files"].get("secrets/env") == (["HF_TOKEN=hf_very_secret\n", "600"] if secrets else None)
    assert [name for name in launch.args["files"] if "vllm_serve" in name] == [f"scripts/{GROUP.script}"]
    joined = next(
        call.args for call in bench.fleet.sent("change_record") if "join" in call.args and call.host == "gpu02"
    )
    assert [server["name"] for server in joined["join"]["instances"]] == ["qwen/1"]
    assert (joined["join"]["gpus"], joined["scripts"]) == (list(range(8)), [GROUP.script])
    (ranks,) = [call.args["scripts"] for call in bench.fleet.sent("watch_ranks") if call.host == "gpu02"]
    assert ranks == [GROUP.script]


def test_requests_that_are_left_are_told_of_and_ended_with_the_group(tmp_path: Path) -> None:
    def busy(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"idle": False, "requests": 3, "why": ""}

    bench = Bench(drain=busy)
    bench.change(tmp_path)
    assert "qwen/1: has 3 requests after 120 s" in bench.heard.texts("change", "note")
    assert ("stop_group", "gpu02") in bench.acts


def test_a_group_that_is_not_ready_is_stopped_again_and_stays_named(tmp_path: Path) -> None:
    def dies(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"dead": True}

    bench = Bench(watch=dies)
    with pytest.raises(InstanceFailedError):
        bench.change(tmp_path)
    assert [call.host for call in bench.fleet.sent("stop_group")] == ["gpu02", "gpu02"]
    assert [act for act, _ in bench.acts if act.startswith("note")] == ["note drain", "note stop", "note start"]


def test_a_start_that_fails_is_told_also_where_what_it_started_cannot_be_stopped(tmp_path: Path) -> None:
    def dies(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"dead": True}

    def stops_once(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if len(bench.fleet.sent("stop_group")) > 1:
            raise UnreachableError("gpu02", "no answer")
        yield from ended(_host, _args)

    bench = Bench(watch=dies, stop_group=stops_once)
    with pytest.raises(InstanceFailedError):
        bench.change(tmp_path)
    (note,) = bench.heard.texts("change", "note")
    assert note.startswith("qwen/1: what was started of it is not stopped: ")


def test_a_host_that_has_no_part_yet_gets_a_record_and_the_secrets_before_a_group_starts_there(tmp_path: Path) -> None:
    def elsewhere(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        for reply in inspected(host, args):
            assert isinstance(reply, dict)
            yield {**reply, "record": reply["record"] if host.name == "gpu01" else None}

    bench = Bench(inspect=elsewhere)
    change = bench.change(tmp_path)
    (reserved,) = bench.fleet.sent("reserve")
    assert (reserved.host, reserved.args["run_id"], reserved.args["record"]["gpus"]) == ("gpu02", RUN, list(range(8)))
    assert [server["name"] for server in reserved.args["record"]["instances"]] == ["qwen/0", "qwen/1"]
    (launch,) = bench.fleet.sent("launch")
    assert launch.args["files"]["secrets/env"] == ["HF_TOKEN=hf_very_secret\n", "600"]
    assert (change.hosts, change.new_hosts) == (["gpu01", "gpu02"], ["gpu02"])


def test_nothing_is_stopped_where_the_router_keeps_the_group(tmp_path: Path) -> None:
    def refuses(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"workers": [], "problem": "it answers 500"}

    bench = Bench(route=refuses)
    with pytest.raises(RemoteError, match="gpu01: qwen/router: it answers 500"):
        bench.change(tmp_path)
    assert not bench.fleet.sent("stop_group")


def test_nothing_is_started_where_something_survives_or_others_have_the_gpus(tmp_path: Path) -> None:
    def survives(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        left = {"pid": 7, "command": "vllm", "state": "D", "why": "it waits in the kernel"}
        yield {"ended": 0, "killed": 1, "survivors": [left], "segments": 0}

    def taken(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"taken": [{"what": "GPU 3", "by": "eve"}] if "join" in args else []}

    surviving, robbed = Bench(stop_group=survives), Bench(change_record=taken)
    with pytest.raises(RemoteError, match="qwen/1: 1 process survived: pid 7 vllm: it waits in the kernel"):
        surviving.change(tmp_path / "a")
    with pytest.raises(CheckError, match="GPU 3 is taken by eve"):
        robbed.change(tmp_path / "b")
    assert not surviving.fleet.sent("launch") + robbed.fleet.sent("launch")


def test_without_a_router_a_group_is_drained_alone(tmp_path: Path) -> None:
    def unrouted(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        record = {**record_of(PLAN, host.name, {}, ()), "run_id": RUN, "processes": [], "routers": []}
        yield {"record": record, "processes": [], "live": 1, "ranks": {}, "instances": {}, "ray": None}

    bench = Bench(inspect=unrouted)
    bench.change(tmp_path)
    assert not bench.fleet.sent("route")
    assert bench.fleet.sent("drain")


def test_a_deployment_that_does_not_run_cannot_be_changed() -> None:
    def absent(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"record": None, "processes": [], "live": 0, "ranks": {}, "instances": {}, "ray": None}

    with pytest.raises(CheckError, match="it does not run"):
        Bench(inspect=absent).open()


def test_a_group_of_an_older_version_is_refused() -> None:
    change = Bench().open()
    server = change.servers["qwen/1"]
    for old in ({**server, "ranks": []}, {**server, "ranks": [{**server["ranks"][0], "worker_url": ""}]}):
        change.servers["qwen/1"] = old  # type: ignore[assignment]
        with pytest.raises(CheckError, match="older version"):
            change.drain(["qwen/1"], 1.0)


def test_a_plan_of_another_run_is_refused(tmp_path: Path) -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="a plan of run other"):
        bench.change(tmp_path, planned(inventory(*HOSTS), SPEC, run_id="other"))
    assert not bench.fleet.sent("launch")


def test_files_are_restored_before_the_group_starts_and_none_is_sent(tmp_path: Path) -> None:
    bench = Bench()
    bench.change(tmp_path, restore=True)
    joins = {call.host: call.args for call in bench.fleet.sent("change_record") if "join" in call.args}
    assert {host: args.get("before") for host, args in joins.items()} == {"gpu01": None, "gpu02": "restore"}
    (launch,) = bench.fleet.sent("launch")
    assert launch.args["files"] == {}


@pytest.mark.parametrize("allowed", [True, False])
def test_only_a_host_that_may_be_lost_is_left_out(allowed: bool) -> None:
    def silent(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            raise UnreachableError("gpu02", "no answer")
        yield from inspected(host, args)

    bench = Bench(inspect=silent)
    if not allowed:
        with pytest.raises(UnreachableError):
            bench.open()
        return
    change = open_change(bench.fleet, "qwen", "gpu01", NOTE, bench.heard, may_be_lost=["gpu02"])
    change.stop(["qwen/1"], 5.0)
    assert not bench.fleet.sent("stop_group")
    assert "qwen/1: is not stopped here: the host is out of reach" in bench.heard.texts("change", "note")


def test_a_group_that_is_not_well_soon_after_its_start_is_an_error(tmp_path: Path) -> None:
    change = Bench().change(tmp_path)
    with pytest.raises(GroupUnwellError, match="gpu02: qwen/1 is UNKNOWN soon after its start"):
        change.watch(["qwen/1"], 5.0)
