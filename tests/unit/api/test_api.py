"""One function per command, over hosts that are functions: what each asks of them, in which order, what it refuses."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api import inspecting, reserving, running
from flagscale_deploy.api.checking import fault_of
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.errors import (
    BusyError,
    CheckError,
    DeployError,
    FaultsError,
    HostError,
    HostsUnreachableError,
    InputError,
    LockedError,
    RemoteError,
    UnreachableError,
)
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Secret
from flagscale_deploy.transport.base import Outcome, ending_with_input
from flagscale_deploy.transport.fleet import Fleet
from tests.fakes import Output, silence_until
from tests.unit.api.world import HOSTS, Act, World
from tests.unit.deploy.given import Heard
from tests.unit.plan.given import facts, host, inventory, model, spec


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused_run(world: World, **settings: Any) -> DeployError:
    with pytest.raises(DeployError) as raised:
        api.run(world.request(), **settings)
    return raised.value


def test_a_run_probes_locks_looks_plans_starts_and_waits(world: World) -> None:
    heard = Heard()
    result = api.run(world.request(), say=heard)
    assert world.modules[:6] == ["probe", "lock", "inspect", "network_test", "parse_flags", "reserve"]
    assert set(world.modules[6:]) == {"launch", "watch", "watch_ranks"}
    assert result.endpoints == (("http://10.0.0.1:4567/v1", "/models/qwen"),)
    assert result.plan is not None
    assert result.folder is not None
    assert result.folder.path == world.folder / "runs" / result.plan.run_id
    assert not result.secured
    report = json.loads((result.folder.path / "report.json").read_text())
    assert (report["verdict"], report["run_id"]) == ("ready", result.plan.run_id)
    assert json.loads((result.folder.path / "plan.json").read_text())["digest"] == result.plan.digest
    events = [json.loads(line) for line in result.folder.events.read_text().splitlines()]
    stages = [event["stage"] for event in events]
    assert list(dict.fromkeys(stages)) == list(dict.fromkeys(event.stage for event in heard.events))
    assert stages[0] == "probe"
    assert set(result.stages) >= {"probe", "ray-head", "serve"}


def test_the_same_again_is_found_and_not_started_twice(world: World) -> None:
    first = api.run(world.request())
    world.calls.clear()
    again = api.run(world.request())
    assert again.up is None
    assert again.plan is None
    assert again.endpoints == first.endpoints
    assert world.modules == ["probe", "lock", "inspect"]


@pytest.mark.parametrize("last", ["report", "connections"])
def test_an_interrupt_of_a_run_that_is_ready_says_that_it_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """It comes while the report is written, or connections are closed."""

    def interrupted(*_words: Any) -> None:
        raise KeyboardInterrupt

    if last == "report":
        monkeypatch.setattr(running, "_write_report", interrupted)
    else:
        monkeypatch.setattr(Fleet, "close", lambda fleet: interrupted() if fleet.hosts else None)
    error = refused_run(world)
    assert (error.exit_code, world.running) == (130, True)
    assert "the deployment runs" in error.lines[0]
    assert "flagscale-deploy stop" in error.lines[1]


def test_another_configuration_of_what_runs_is_refused(world: World) -> None:
    api.run(world.request())
    world.calls.clear()
    world.spec = spec(model(tp=16, port=4568), exp_dir=str(world.folder))
    error = refused_run(world)
    assert isinstance(error, CheckError)
    assert "it runs already, with another configuration" in str(error)
    assert "flagscale-deploy stop -i hosts.yaml --name qwen, then run again" in str(error)
    assert "launch" not in world.modules


def test_what_runs_but_is_not_well_is_not_started_again(world: World) -> None:
    api.run(world.request())
    world.token = False
    error = str(refused_run(world))
    assert "it runs already, but is unwell" in error
    assert "flagscale-deploy update" not in error


def test_a_change_that_is_not_over_is_finished_or_put_back_before_a_run(world: World) -> None:
    api.run(world.request())
    change = {"run_id": "c1", "operator": "eve@desk", "base": "r1", "groups": [], "step": "", "done": [],
              "secrets": False, "at": 1.0}  # fmt: skip
    for record in world.records.values():
        record["change"] = change
    error = str(refused_run(world))
    assert "qwen: a change of it is not over (c1 of eve@desk)" in error
    assert "to finish it: flagscale-deploy update -i hosts.yaml --name qwen --resume; " in error
    assert "to put it back: flagscale-deploy rollback -i hosts.yaml --name qwen" in error


def test_after_a_stop_it_is_started_afresh(world: World) -> None:
    request = world.request()
    first = api.run(request)
    assert api.stop(request).exit_code == 0
    again = api.run(request)
    assert again.up is not None
    assert again.plan is not None
    assert first.plan is not None
    assert again.plan.run_id != first.plan.run_id


def test_one_host_down_and_nothing_is_touched_anywhere(world: World) -> None:
    world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    error = refused_run(world)
    assert isinstance(error, HostsUnreachableError)
    assert world.modules == ["probe"]


def test_a_lock_is_respected_before_anything_is_planned(world: World) -> None:
    world.holder = {"who": "bob@ops", "what": "run", "since": "now"}
    assert isinstance(refused_run(world), LockedError)
    assert world.modules == ["probe", "lock"]


def test_a_check_that_says_no_starts_nothing(world: World) -> None:
    world.facts["gpu02"] = facts("gpu02", 4)
    assert isinstance(refused_run(world), CheckError)
    assert world.modules == ["probe", "lock", "inspect"]


@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_what_is_wrong_by_itself_contacts_no_host(world: World, command: str) -> None:
    world.spec = spec(model(tp=2, num_gpus=3))
    with pytest.raises(InputError):
        getattr(api, command)(world.request())
    assert world.calls == []


@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_templates_that_are_no_good_contact_no_host(world: World, command: str) -> None:
    with pytest.raises(InputError):
        getattr(api, command)(world.request(), api.PlanOptions(templates=world.folder / "nosuch"))
    assert world.calls == []


def test_a_failed_run_leaves_a_report_and_nothing_else(world: World) -> None:
    world.watched = [{"lines": ["KeyError: 'x'"]}, {"dead": True}]
    with pytest.raises(RunFailedError) as raised:
        api.run(world.request())
    assert world.modules == [
        "probe", "lock", "inspect", "network_test", "parse_flags", "reserve", "launch", "watch_ranks", "watch",
        "archive", "stop",
    ]  # fmt: skip
    report = json.loads((raised.value.folder.path / "report.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("failed", 5)
    assert "KeyError: 'x'" in report["error"]
    assert raised.value.folder.events.is_file()
    assert not world.running


def test_the_lock_is_held_until_what_failed_is_taken_down(world: World) -> None:
    """Otherwise somebody else's run could start between the failure and the stop, and be ended by it."""
    world.watched = [{"dead": True}]
    with pytest.raises(RunFailedError):
        api.run(world.request())
    assert [call.module for call in world.calls].count("lock") == 1


def test_plan_and_check_start_nothing(world: World) -> None:
    made = api.plan(world.request())
    report = api.check(world.request())
    assert world.modules == ["probe", "network_test", "parse_flags"]
    assert report.exit_code == 0
    assert report.plan is not None
    assert report.plan.digest == made.digest
    api.plan(world.request(inventory=inventory(host("gpu01", gpus=8), host("gpu02", gpus=8))), offline=True)
    assert [call.module for call in world.calls].count("probe") == 4


def test_a_check_of_engine_arguments_that_is_left_out_starts_no_parser(world: World) -> None:
    report = api.check(world.request(), api.PlanOptions(skip=("engine-arguments",)))
    assert world.modules == ["probe", "network_test"]
    (verdict,) = [verdict for verdict in report.verdicts if verdict.check == "engine-arguments"]
    assert (verdict.state, verdict.found) == ("skipped", "skipped by --skip-check")
    assert report.plan is not None


def test_check_keeps_every_problem_and_the_worst_status(world: World) -> None:
    world.facts["gpu01"] = facts("gpu01", 8, ray=None)
    world.facts["gpu02"] = facts("gpu02", 8, vllm=None, python="3.12.0", gpu_error="NVML: mismatch")
    report = api.check(world.request())
    text = "\n".join(str(fault_of(verdict)) for verdict in report.failed)
    for problem in ("gpu01: Ray is not installed", "3.12.0", "gpu02: nvidia-smi fails: NVML: mismatch"):
        assert problem in text
    assert report.exit_code == 4
    world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    world.spec = spec(model(tp=16), ray="on")
    report = api.check(world.request())
    assert report.exit_code == 3
    text = "\n".join(str(fault_of(verdict)) for verdict in report.failed)
    assert "gpu02: no answer" in text
    assert "gpu01: Ray is not installed" in text  # problems of the other hosts are reported, too
    assert report.observations["gpu01"].facts is not None


def test_check_without_a_configuration_looks_at_hosts_only(world: World) -> None:
    report = api.check(world.request(spec=None))
    assert (report.exit_code, report.plan) == (0, None)


def test_stop_without_a_head_frees_the_other_hosts(world: World) -> None:
    api.run(world.request())
    world.refused["gpu01"] = UnreachableError("gpu01", "no answer")
    heard = Heard()
    report = api.stop(world.request(), say=heard)
    assert [(host.host, host.state) for host in report.hosts] == [("gpu01", "UNKNOWN"), ("gpu02", "stopped")]
    assert report.exit_code == 3
    assert "no lock, because the head cannot be reached: no answer" in heard.texts("stop", "note")


def test_stop_respects_the_lock(world: World) -> None:
    world.holder = {"who": "bob@ops"}
    with pytest.raises(LockedError):
        api.stop(world.request(), lock_wait=0)
    assert "stop" not in world.modules


def test_stop_and_status_need_but_a_name(world: World) -> None:
    api.run(world.request())
    request = world.request(spec=None)
    assert api.status(request).state == "ready"
    assert api.stop(request).exit_code == 0
    assert api.status(request).state in ("stopped", "dead")


def test_status_of_what_is_not_well_says_why_as_far_as_logs_do(world: World) -> None:
    api.run(world.request())
    assert api.status(world.request()).diagnosis is None
    world.token = False
    status = api.status(world.request())
    assert status.diagnosis is not None
    assert (status.state, status.diagnosis.host, status.diagnosis.signature) == ("unwell", "gpu01", "disk-full")
    shown: Any = status.json()
    assert shown["diagnosis"]["remedy"] == status.diagnosis.remedy
    assert api.status(world.request(), ask=False).diagnosis is None


def test_cleanup_stops_first_and_removes_only_where_nothing_runs(world: World) -> None:
    api.run(world.request())
    world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    world.calls.clear()
    report = api.cleanup(world.request())
    assert world.modules == ["lock", "stop", "cleanup"]
    assert {call.host for call in world.calls if call.module == "cleanup"} == {"gpu01"}
    assert report.removed == {"gpu01": ("/state",)}
    assert report.exit_code == 3


def test_a_call_goes_to_the_first_server_that_answers(world: World) -> None:
    api.run(world.request())
    assert (
        api.call(world.request(), [{"role": "user", "content": "hi"}], max_tokens=5)
        == world.answers["qwen/0"]["answer"]
    )
    (call,) = (call for call in world.calls if call.module == "chat")
    assert call.host == "gpu01"
    assert call.args["parameters"] == {"max_tokens": 5}
    assert call.args["messages"] == [{"role": "user", "content": "hi"}]


def test_a_call_to_a_program_is_sent_from_the_host_where_it_serves(world: World) -> None:
    api.run(world.request())
    servers = [
        server | {"served_name": "", "engine": "program", "hosts": list(HOSTS)}
        for server in world.records["gpu01"]["instances"]
    ]
    for name in HOSTS:
        world.records[name] = world.records[name] | {"instances": servers}
    world.answers["qwen/0 on gpu01"] = {"problem": "no answer: Connection refused"}
    assert api.call(world.request(), []) == world.answers["qwen/0"]["answer"]
    assert [call.host for call in world.calls if call.module == "chat"] == ["gpu01", "gpu02"]


def test_a_head_with_many_servers_that_do_not_answer_takes_no_longer_than_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "CALL_SECONDS", 1.0)
    api.run(world.request())
    (server,) = world.records["gpu01"]["instances"]
    servers = [server | {"name": f"qwen/{number}"} for number in range(50)]
    for name in HOSTS:
        world.records[name] = world.records[name] | {"instances": servers}
    world.alter = lambda _host, module, given: [None] * 1000 if module == "chat" else given
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"^gpu01: "):
        api.call(world.request(), [])
    assert time.monotonic() - began < 30
    assert 0 < sum(call.module == "chat" for call in world.calls) < 10


def test_a_call_that_nobody_answers_says_why(world: World) -> None:
    api.run(world.request())
    world.answers["qwen/0"] = {"problem": "HTTP 500: boom"}
    with pytest.raises(RemoteError, match="gpu01: qwen/0: HTTP 500: boom"):
        api.call(world.request(), [])


def test_a_call_to_what_was_stopped_says_since_when(world: World) -> None:
    api.run(world.request())
    world.running = False
    with pytest.raises(FaultsError, match=r"qwen: nothing of it runs any more \(run .*, started 1970-01-0"):
        api.call(world.request(), [])
    for name in HOSTS:
        world.records[name] = world.records[name] | {"stopped_at": 90_000.0}
    with pytest.raises(FaultsError, match=r"qwen: it is stopped since 1970-01-0\d \d\d:00:00\n.*start it with `run`"):
        api.call(world.request(), [])
    assert "chat" not in world.modules


def test_a_streamed_call_shows_pieces_and_asks_no_other_server_once_it_began(world: World) -> None:
    api.run(world.request())
    shown: list[str] = []
    outputs: list[Output] = [{"piece": "I am "}, {"piece": "Qwen."}, {"answer": {"choices": [{"message": {}}]}}]
    world.alter = lambda _host, module, given: outputs if module == "chat" else given
    answer = api.call(world.request(), [], show=shown.append)
    assert shown == ["I am ", "Qwen."]
    assert answer["choices"][0]["message"]["content"] == "I am Qwen."
    assert [call.args["stream"] for call in world.calls if call.module == "chat"] == [True]
    for ends in ({"problem": "no answer: timed out"}, RemoteError("gpu01", "boom")):
        outputs[2:] = [ends]
        with pytest.raises(RemoteError, match=r"timed out|boom"):
            api.call(world.request(), [], show=shown.append)


def test_a_call_to_what_is_not_there(world: World) -> None:
    with pytest.raises(FaultsError, match="no host has a deployment of this name"):
        api.call(world.request(), [])
    world.refused = {name: UnreachableError(name, "no answer") for name in HOSTS}
    with pytest.raises(HostsUnreachableError):
        api.call(world.request(), [])


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("echo $HOME | cat",), "echo $HOME | cat"),
        (("echo", "a b", "$(x)"), "echo 'a b' '$(x)'"),
    ],
)
def test_exec_sends_shell_or_words_and_keeps_every_hosts_outcome(
    world: World, words: tuple[str, ...], sent: str
) -> None:
    results = api.execute_everywhere(world.request(), words, timeout=5)
    first, second = results["gpu01"], results["gpu02"]
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.exit_code, first.stderr) == (0, b"err")
    assert shlex.split(first.stdout.decode()) == ["exec", *ending_with_input(sent)]
    assert second.exit_code == 1


def test_exec_goes_into_the_hosts_container(world: World) -> None:
    request = world.request(inventory=inventory(host("gpu01", container="a box")))
    outcome = api.execute_everywhere(request, ["echo 'x'"], timeout=5)["gpu01"]
    assert isinstance(outcome, Outcome)
    inside = ["docker", "exec", "-i", "a box", *ending_with_input("echo 'x'", "sh")]
    assert shlex.split(outcome.stdout.decode()) == inside


def test_exec_enters_the_environment_of_a_host_without_its_secrets(world: World) -> None:
    entered = host("gpu01", venv="~/v env", env={"A": "b c"}, secret_env={"K": Secret("s3cret")}, before_start="hook")
    outcome = api.execute_everywhere(world.request(inventory=inventory(entered)), ["vllm"], timeout=5, env=True)[
        "gpu01"
    ]
    assert isinstance(outcome, Outcome)
    *_, text, program = shlex.split(outcome.stdout.decode())
    assert program == "bash"
    assert text == """export A='b c'\n. "$HOME"/'v env'/bin/activate || exit\nhook\nvllm"""


def test_logs_of_every_host(world: World, tmp_path: Path) -> None:
    collected = api.collect(world.request(), tmp_path / "logs")
    assert not any(isinstance(logs, HostError) for logs in collected.values())
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["gpu01", "gpu02"]


def test_a_run_that_was_beaten_to_a_gpu_looks_and_plans_again(world: World) -> None:
    """It gives back what it got elsewhere, says who was quicker, and takes what is free then."""
    beaten = [[{"what": "GPU 0", "by": "deployment llama (run r9 of eve@desk)"}], []]

    def reserve(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"taken": beaten.pop(0) if host.name == "gpu02" and not args.get("release") else []}

    world.reserve = reserve
    heard = Heard()
    result = api.run(world.request(), say=heard)
    assert result.up is not None
    calls = [(call.module, call.host) for call in world.calls if call.module in ("probe", "reserve", "launch")]
    assert [module for module, _ in calls][:8] == ["probe", "probe", *["reserve"] * 4, "probe", "probe"]
    given_back = [call.host for call in world.calls if call.module == "reserve" and call.args.get("release")]
    assert sorted(given_back) == ["gpu01", "gpu02"]
    (note,) = heard.texts("plan", "note")
    assert note == "GPU 0 was taken meanwhile by deployment llama (run r9 of eve@desk); planning again"


def beaten(times: int) -> Act:
    """Return what `reserve` replies on a host where somebody else is quicker so many times."""
    left = dict.fromkeys(HOSTS, times)

    def reserve(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        loses = not args.get("release") and left[host.name] > 0
        left[host.name] -= loses
        yield {"taken": [{"what": "port 4567", "by": "deployment llama"}] * loses}

    return reserve


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs that meet try again at once, and those that wait look again at once."""
    monkeypatch.setattr(reserving, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(reserving, "LOOK_SECONDS", (0.001, 0.002))


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_beaten_ten_times_goes_on_while_there_is_room(world: World) -> None:
    world.reserve = beaten(10)
    assert api.run(world.request()).up is not None
    assert sum(call.module == "reserve" and not call.args.get("release") for call in world.calls) == 22


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_always_beaten_says_by_whom_and_starts_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "RACE_SECONDS", 0.1)
    world.reserve = beaten(1_000_000)
    error = refused_run(world)
    assert isinstance(error, BusyError)
    assert "gpu01: port 4567 was taken meanwhile by deployment llama" in str(error)
    assert "launch" not in world.modules


def test_another_run_of_the_very_deployment_is_no_place_to_wait_for(world: World) -> None:
    world.reserve = lambda _host, _args: [{"taken": [{"what": "deployment qwen", "by": "eve@desk", "own": True}]}]
    error = refused_run(world, options=api.PlanOptions(wait=60))
    assert (type(error), error.exit_code) == (CheckError, 4)
    assert "gpu01: deployment qwen runs here already: eve@desk" in str(error)
    assert sum(call.module == "reserve" for call in world.calls) == 4, "and what was reserved is released"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("runs", [4, 8])
def test_runs_at_the_same_moment_all_get_a_place_as_long_as_there_is_one_for_each(tmp_path: Path, runs: int) -> None:
    """They all see the same GPUs free, so that all but one lose the first race."""
    claims: list[dict[str, Any]] = []
    taking = threading.Lock()

    def reserve(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        with taking:
            if args.get("release"):
                claims[:] = [claim for claim in claims if claim["run_id"] != args["run_id"]]
                return [{"taken": []}]
            wanted = {**args["record"], "run_id": args["run_id"], "boot_id": "boot-gpu01"}
            taken = [
                {"what": f"GPU {gpu}", "by": claim["deployment"]}
                for claim in claims
                for gpu in {*claim["gpus"]} & {*wanted["gpus"]}
            ]
            claims.extend([] if taken else [wanted])
            return [{"taken": taken}]

    def run(number: int) -> api.RunResult:
        alone = World(tmp_path / str(number))
        alone.spec = spec(model(port=5000 + number), name=f"smoke-{number}", exp_dir=str(tmp_path / str(number)))
        alone.reserve = reserve
        alone.probe = lambda _host, _args: [{**asdict(facts("gpu01", runs)), "deployments": list(claims)}]  # type: ignore[method-assign,assignment]
        return api.run(alone.request(inventory=inventory("gpu01"), name=f"smoke-{number}"))

    with ThreadPoolExecutor(runs) as pool:
        results = list(pool.map(run, range(runs)))
    assert sorted(gpu for claim in claims for gpu in claim["gpus"]) == list(range(runs))
    assert all(result.up is not None for result in results)


def test_what_was_taken_is_given_back_where_the_run_s_folder_cannot_be_made(world: World) -> None:
    (world.folder / "runs").mkdir(mode=0o700)
    world.spec = replace(world.spec, exp_dir=str(world.folder))
    blocked = world.folder / "runs"

    def reserve(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if not args.get("release"):
            (blocked / args["run_id"]).mkdir(exist_ok=True)  # somebody has this very folder
        yield {"taken": []}

    world.reserve = reserve
    with pytest.raises(InputError, match="cannot be made"):
        api.run(world.request())
    assert {call.host for call in world.calls if call.args.get("release")} == set(HOSTS)


def test_a_run_that_loses_its_lock_leaves_everything_as_it_is(world: World) -> None:
    displaced = threading.Event()

    def lock(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"locked": True}
        yield from silence_until(displaced)
        yield {"displaced": {"who": "eve@desk", "since": "now"}}

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        displaced.set()
        while True:
            yield None

    world.lock = lock  # type: ignore[method-assign,assignment]
    world.watch = watch
    error = refused_run(world)
    assert error.exit_code == 6
    assert isinstance(error, RunFailedError)
    assert "eve@desk released it with unlock" in str(error)
    assert error.failure.stopped is None
    assert {"stop", "archive"}.isdisjoint(world.modules)


def test_a_run_that_fails_takes_down_itself_and_no_other_run(world: World) -> None:
    world.watched = [{"dead": True}]
    error = refused_run(world)
    assert isinstance(error, RunFailedError)
    made = json.loads((error.folder.path / "plan.json").read_text())
    assert {call.args["run_id"] for call in world.calls if call.module == "stop"} == {made["run_id"]}


def test_unlock_asks_the_head_alone(world: World) -> None:
    holder = {"who": "bob@ops", "what": "run", "since": "then"}
    world.unlock = lambda _host, _args: [
        {"state": "free", "holder": holder, "pid": None, "silent": None, "filesystem": ""}
    ]
    done = api.unlock(world.request())
    assert (done.state, done.host, done.deployment) == ("free", "gpu01", "qwen")
    assert [(call.module, call.host) for call in world.calls] == [("unlock", "gpu01")]


def test_a_head_without_a_part_keeps_the_record_that_decides(world: World) -> None:
    world.spec = spec(model(tp=8, port=4567), exp_dir=str(world.folder))
    world.facts["gpu01"] = facts("gpu01", 0)
    api.run(world.request())
    reserved = {call.host: call.args["record"] for call in world.calls if call.module == "reserve"}
    assert {host: (record["head"], record["roles"]) for host, record in reserved.items()} == {
        "gpu01": ("gpu01", []), "gpu02": ("gpu01", ["engine"]),
    }  # fmt: skip
    assert [call.host for call in world.calls if call.module == "launch"] == ["gpu02"]
    assert not api.status(world.request()).trusted
    world.records["gpu01"] = {**reserved["gpu01"], **{key: world.records["gpu02"][key] for key in ("run_id",)}}
    assert api.status(world.request()).trusted


def test_a_record_that_a_host_makes_up_is_no_deployment_of_the_head(world: World) -> None:
    """It knows the digest and the hash of the secrets of a run that was cleaned up."""
    api.run(world.request())
    made_up = dict(world.records["gpu02"])
    api.stop(world.request())
    api.cleanup(world.request())
    (server,) = made_up["instances"]
    made_up |= {"head": "gpu02", "hosts": ["gpu02"], "ray": {"enabled": False, "address": ""}, "roles": ["engine"]}
    made_up["instances"] = [{**server, "driver": "gpu02", "hosts": ["gpu02"], "endpoint": "http://evil.example/v1"}]
    world.records, world.running = {"gpu02": made_up}, True
    current = api.status(world.request())
    assert (current.state, current.trusted, current.exit_code) == ("UNKNOWN", False, 3)
    world.calls.clear()
    assert "it runs already, but is UNKNOWN" in str(refused_run(world))
    with pytest.raises(DeployError):
        api.call(world.request(), [{"role": "user", "content": "my secret prompt"}])
    assert not {"launch", "chat"} & {call.module for call in world.calls}
