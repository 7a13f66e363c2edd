"""What is typed on the days after the first one: keys that change, places that others have, parts that are stopped."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flagscale_deploy.api import reserving
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from tests.fakes import Output
from tests.unit.cli.fleet import Typing
from tests.unit.plan.given import facts


@pytest.fixture
def typing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typing:
    return Typing(tmp_path, monkeypatch)


def test_a_key_that_was_rotated_is_another_configuration(typing: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    again = typing("run -c qwen.yaml")
    assert (again.exit_code, "runs already with this very configuration" in again.output) == (0, True), again.output
    monkeypatch.setenv("VLLM_API_KEY", "second-key")
    rotated = typing("run -c qwen.yaml")
    assert rotated.exit_code == 4
    assert "it runs already, with other secrets: a value of VLLM_API_KEY has changed" in rotated.stderr
    assert "→ to change it: flagscale-deploy update -i hosts.yaml --name qwen -c qwen.yaml; or " in rotated.stderr
    assert "flagscale-deploy stop -i hosts.yaml --name qwen, then run again" in rotated.stderr
    assert "-key" not in rotated.output
    shown = json.dumps(typing.world.records) + typing("status --name qwen --json").output
    assert "first-key" not in shown
    assert shown.count('"secret_hash"') == 2, "of both records; status does not show it"


def test_runs_with_the_same_key_have_different_hashes(typing: Typing) -> None:
    hashes = set()
    for _ in range(2):
        assert typing("run -c qwen.yaml").exit_code == 0
        hashes |= {record["secret_hash"] for record in typing.world.records.values()}
        assert typing("stop --name qwen").exit_code == 0
    assert len(hashes) == 2


def llama(typing: Typing) -> None:
    """Let another deployment hold the GPUs of gpu02."""
    claim = {"deployment": "llama", "boot_id": "boot-gpu02", "gpus": list(range(8)), "operator": "eve@desk"}
    taken = replace(typing.world.facts["gpu02"], deployments=(claim,))  # type: ignore[arg-type]
    typing.world.probe = lambda host, args: [  # type: ignore[method-assign]  # noqa: ARG005
        asdict(taken if host.name == "gpu02" else typing.world.facts[host.name])
    ]


@pytest.mark.parametrize("command", ["run", "check", "plan", "smoke"])
def test_places_that_others_have_are_exit_status_7(typing: Typing, command: str) -> None:
    llama(typing)
    busy = typing(f"{command} -c qwen.yaml")
    assert busy.exit_code == 7, busy.output
    assert "llama" in busy.output
    assert typing("hosts").exit_code == 0


@pytest.mark.parametrize("command", ["run", "check", "plan", "smoke"])
def test_what_else_is_wrong_stays_exit_status_4(typing: Typing, command: str) -> None:
    """A host that is too small does not become larger by waiting."""
    llama(typing)
    typing.world.facts["gpu01"] = facts("gpu01", 4)
    assert typing(f"{command} -c qwen.yaml{'' if command in ('check', 'plan') else ' --wait 30m'}").exit_code == 4


@pytest.mark.parametrize("command", ["smoke", "check"])
def test_busy_is_told_from_broken_in_junit(typing: Typing, command: str) -> None:
    llama(typing)
    assert typing(f"{command} -c qwen.yaml --junit busy.xml").exit_code == 7
    kinds = {failure.get("type") for failure in ElementTree.parse("busy.xml").iter("failure")}
    assert kinds == {"busy"}


@pytest.mark.parametrize("command", ["run", "smoke"])
def test_wait_queues_until_there_is_room(typing: Typing, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserving, "LOOK_SECONDS", (0.001, 0.002))
    free, looks = typing.world.probe, []
    llama(typing)
    full = typing.world.probe

    def probe(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        looks.append(host.name)
        return (full if len(looks) <= 8 else free)(host, args)

    typing.world.probe = probe  # type: ignore[method-assign]
    done = typing(f"{command} -c qwen.yaml --wait 30m -v")
    assert "waiting for room, for up to" in done.output
    assert ("launch" in typing.world.modules, len(looks) > 8) == (True, True)
    assert done.exit_code == 0 or command == "smoke", done.output  # its answer is no completion of a real engine
    assert done.exit_code != 7


def test_wait_ends(typing: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserving, "LOOK_SECONDS", (0.1, 0.1))
    llama(typing)
    began = time.monotonic()
    assert typing("run -c qwen.yaml --wait 1s").exit_code == 7
    assert time.monotonic() - began >= 1


SMALL = "model_args.qwen.tensor-parallel-size=8"


def test_a_name_that_runs_on_hosts_out_of_limit_is_not_started_a_second_time(typing: Typing) -> None:
    assert typing(f"run -c qwen.yaml --limit gpu02 {SMALL}").exit_code == 0
    assert typing(f"run -c qwen.yaml --limit gpu02 {SMALL}").exit_code == 0, "the same again"
    typing.world.calls.clear()
    second = typing(f"run -c qwen.yaml --limit gpu01 {SMALL}")
    assert second.exit_code == 4, second.output
    assert "qwen: it runs already on gpu02, which --limit leaves out (run " in second.stderr
    assert "flagscale-deploy stop -i hosts.yaml -c" not in second.stderr
    assert "flagscale-deploy stop -i hosts.yaml --name qwen, then run again; or choose another --name" in second.stderr
    assert {"lock", "reserve", "launch"}.isdisjoint(typing.world.modules)


def test_of_two_runs_of_one_name_that_start_together_the_second_backs_off_and_is_refused(typing: Typing) -> None:
    """It sees that the other has reserved gpu02, gives gpu01 back, and sees later that the other runs."""
    by = "deployment qwen (run r9 of eve@desk)"
    rivals = [{"what": "the name qwen", "by": by}, {"what": "deployment qwen", "by": by, "own": True}]

    def reserve(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        assert (host.name == "gpu02") == args.get("look", False)
        yield {"taken": [rivals.pop(0)] if host.name == "gpu02" else []}

    typing.world.reserve = reserve
    second = typing(f"run -c qwen.yaml --limit gpu01 {SMALL} -v")
    assert second.exit_code == 4
    assert f"the name qwen was taken meanwhile by {by}; planning again" in second.output
    assert f"gpu02: deployment qwen runs here already: {by}" in second.stderr
    released = [call.host for call in typing.world.calls if call.module == "reserve" and call.args.get("release")]
    assert (released, "launch" in typing.world.modules) == (["gpu01", "gpu01"], False)


def test_a_host_out_of_limit_that_cannot_be_asked_is_noted_and_keeps_nobody_waiting(typing: Typing) -> None:
    typing.world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    done = typing(f"run -c qwen.yaml --limit gpu01 {SMALL} -v")
    assert done.exit_code == 0, done.output
    assert "[gpu02] look: whether qwen runs on 1 other host is not known: no answer" in done.output


@pytest.mark.parametrize("command", ["stop", "cleanup"])
def test_a_part_that_the_rest_needs_is_not_stopped_without_force(typing: Typing, command: str) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    typing.world.calls.clear()
    for part, other in (("gpu02", "gpu01"), ("gpu01", "gpu02")):
        refused = typing(f"{command} --name qwen --limit {part}")
        assert refused.exit_code == 4
        assert f"it runs on {other} too, which --limit leaves out; this breaks qwen/0 (gpu01, gpu02)" in refused.stderr
        assert ("Ray, whose head is there" in refused.stderr) == (part == "gpu01")
        assert "stop -i hosts.yaml --name qwen; or only this part, with --force" in refused.stderr
    assert set(typing.world.modules) == {"inspect"}
    assert typing(f"{command} --name qwen --limit gpu02 --force").exit_code == 0
    assert {call.host for call in typing.world.calls if call.module == "stop"} == {"gpu02"}


@pytest.mark.parametrize("command", ["stop", "cleanup"])
def test_a_part_whose_rest_is_gone_is_stopped(typing: Typing, command: str) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    typing.world.refused["gpu01"] = UnreachableError("gpu01", "no answer")
    assert typing(f"{command} --name qwen --limit gpu02").exit_code == 0
    assert "stop" in typing.world.modules


def test_smoke_stops_what_it_started_on_its_hosts(typing: Typing) -> None:
    done = typing(f"smoke -c qwen.yaml --limit gpu01 {SMALL}")
    assert "stop" in typing.world.modules, done.output


def test_status_without_a_name_lists_what_is_on_the_hosts(typing: Typing) -> None:
    empty = typing("status")
    assert (empty.exit_code, "0 deployments" in empty.stdout) == (0, True), empty.output
    assert typing("run -c qwen.yaml").exit_code == 0
    listed = typing("status")
    assert listed.exit_code == 0, listed.output
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith("qwen")]
    assert [word in row for word in ("ready", "gpu01, gpu02", "http://10.0.0.1:4567/v1")] == [True] * 3, row
    content = json.loads(typing("status --json").stdout)
    assert [status["deployment"] for status in content["deployments"]] == ["qwen"]
    typing.world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    partly = typing("status")
    assert (partly.exit_code, "gpu02: not known: no answer" in partly.stderr) == (3, True), partly.output


def test_ps_lists_deployments_and_gpus(typing: Typing) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    shown = typing("ps")
    assert shown.exit_code == 0, shown.output
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith("qwen")]
    assert [word in row for word in ("ready", "1 of 1", "http://10.0.0.1:4567/v1", "run, ")] == [True] * 4, row
    assert "16 GPUs, 0 free" in shown.stdout
    (held,) = [line.split() for line in shown.stdout.splitlines() if line.startswith("gpu02")]
    assert held[:2] == ["gpu02", "0-7"]
    assert typing("stop --name qwen").exit_code == 0
    for record in typing.world.records.values():
        record["stopped_at"] = 20.0
    assert "0 deployments, 1 stopped (--all shows them)" in typing("ps").stdout
    assert "qwen" in typing("ps --all").stdout
    assert json.loads(typing("ps --json").stdout)["deployments"][0]["state"] == "stopped"
    typing.world.refused["gpu02"] = UnreachableError("gpu02", "no answer")
    partly = typing("ps")
    assert (partly.exit_code, "gpu02: no answer" in partly.stderr) == (3, True), partly.output


def test_history_shows_runs_and_what_they_changed(typing: Typing) -> None:
    event = {"schema": 1, "deployment": "qwen", "host": "gpu01", "server": "", "reason": ""}
    typing.world.events = {
        "gpu01": [
            {**event, "event": "run", "run_id": f"r{n}", "by": "ann@desk", "time": n * 100.0,
             "argv": {"qwen/0": ["vllm", "serve", "/m", "--port", str(n)]}}
            for n in (1, 2)
        ] + [{**event, "event": "ready", "server": "qwen/0", "run_id": "r2", "time": 265.0}]
    }  # fmt: skip
    shown = typing("history --name qwen")
    assert shown.exit_code == 0, shown.output
    assert "qwen: 3 changes" in shown.stdout
    assert [words in shown.stdout for words in ("by ann@desk", "+ qwen/0: --port 2", "1m05s")] == [True] * 3
    one = typing("history --name qwen r2")
    assert "vllm serve /m --port 2" in one.stdout
    assert "r1" not in one.stdout
    changes = json.loads(typing("history --name qwen --tail 1 --json").stdout)["changes"]
    assert [change["event"] for change in changes] == ["ready"]
    wrong = typing("history --name qwen r9")
    assert (wrong.exit_code, "qwen has no run or update of this name" in wrong.stderr) == (1, True), wrong.output
    assert typing("history --name qwen r1 r2").exit_code == 2


def test_history_of_a_run_shows_its_configuration(typing: Typing) -> None:
    assert typing("run -c qwen.yaml deploy.port=4568").exit_code == 0
    (run_id,) = typing.world.kept["gpu01"]
    event = {"schema": 1, "deployment": "qwen", "server": "", "reason": "", "event": "run", "by": "ann@desk"}
    for name in ("gpu01", "gpu02"):
        typing.world.events[name] = [
            {**event, "host": name, "time": 1.0, "run_id": "20200101T000000Z-aaaaaa"},
            {**event, "host": name, "time": 2.0, "run_id": run_id},
        ]
    assert "run 2" in typing("history --name qwen").stdout
    for word in (run_id, run_id[:10], "2"):
        shown = typing(f"history --name qwen {word}")
        assert shown.exit_code == 0, shown.output
        assert f"configuration of run {run_id}, kept by gpu01:" in shown.stdout
        assert "# hosts: gpu01, gpu02" in shown.stdout
        assert "port: 4568" in shown.stdout
        assert "first-key" not in shown.output
    assert typing("history --name qwen 20").exit_code == 1, "two runs begin so"
    assert "2 runs of qwen begin so" in typing("history --name qwen 20").stderr
    old = typing("history --name qwen 1")
    assert (old.exit_code, "no host keeps its configuration" in old.stderr) == (0, True), old.output
    kept = json.loads(typing(f"history --name qwen --json {run_id}").stdout)["configuration"]
    assert (kept["host"], kept["others"], kept["run"]["overrides"]) == ("gpu01", [], ["deploy.port=4568"])
    assert (kept["run"]["secrets"], "secret_hash" in kept["run"]) == ({"": ["VLLM_API_KEY"]}, False)
    typing.world.kept["gpu02"][run_id] = "{}"
    shown = typing(f"history --name qwen {run_id}")
    assert f"gpu02: another configuration of run {run_id} is kept there" in shown.stderr


def test_plan_shows_what_would_change_about_what_runs(typing: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "It runs now" not in typing("plan -c qwen.yaml").stdout
    assert json.loads(typing("plan -c qwen.yaml --json").stdout)["difference"] is None
    assert typing("run -c qwen.yaml").exit_code == 0
    (run_id,) = typing.world.kept["gpu01"]
    same = typing("plan -c qwen.yaml")
    assert f"It runs now (run {run_id}). Nothing would change." in same.stdout, same.output
    difference = json.loads(typing("plan -c qwen.yaml --json").stdout)["difference"]
    assert (difference["run_id"], [server["kind"] for server in difference["servers"]]) == (run_id, ["unchanged"])
    words = "model_args.qwen.max-model-len=8192"
    changed = typing(f"plan -c qwen.yaml {words}")
    assert f"It runs now (run {run_id}). What would change:" in changed.stdout
    assert "    qwen/0 would restart: + --max-model-len 8192" in changed.stdout
    assert "It runs now" not in typing("plan --offline -c qwen.yaml").stdout
    refused = typing(f"run -c qwen.yaml {words}")
    assert refused.exit_code == 4
    assert "processes): qwen/0 would restart: + --max-model-len 8192" in refused.stderr
    assert f"to change it: flagscale-deploy update -i hosts.yaml --name qwen -c qwen.yaml {words}; or" in refused.stderr
    assert "flagscale-deploy stop -i hosts.yaml --name qwen, then run again" in refused.stderr
    monkeypatch.setenv("VLLM_API_KEY", "second-key")
    rotated = typing("plan -c qwen.yaml").stdout
    assert "qwen/0 would restart: a value of VLLM_API_KEY changed" in rotated
    assert "-key" not in rotated


def test_what_an_earlier_version_began_is_compared_as_far_as_it_is_recorded(typing: Typing) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    typing.world.kept["gpu01"].clear()
    shown = typing("plan -c qwen.yaml model_args.qwen.max-model-len=8192").stdout
    assert "qwen/0 would restart: + --max-model-len 8192" in shown
    assert "not compared, because an earlier version began it: environment variables, scripts" in shown


WRONG_NAME = {
    "status": (0, ["inspect"]),
    "status --json": (0, ["inspect"]),
    "history": (1, ["history", "inspect"]),
    "call hi": (1, ["inspect"]),
    "logs": (0, ["follow", "inspect"]),
    "logs -f": (0, ["inspect", "follow"]),
    "logs -o logs": (0, ["archive", "inspect"]),
    "logs --diagnose": (0, ["archive", "inspect"]),
    "stop": (0, ["lock", "stop", "inspect"]),
    "cleanup": (0, ["lock", "stop", "cleanup", "inspect"]),
}
"""Exit status, and the programs that run on each host, once each."""


@pytest.mark.parametrize("command", WRONG_NAME)
def test_a_name_that_is_not_there_offers_those_that_are(typing: Typing, command: str) -> None:
    typing.world.others = ["llama", "qwen"]
    nothing: dict[str, list[Output]] = {
        "follow": [{"clock": 0.0, "utc_offset": 0}],
        "cleanup": [{"removed": [], "bytes": 0, "kept": []}],
    }
    typing.world.alter = lambda _host, module, outputs: nothing.get(module, outputs)
    wrong = typing(f"{command} --name qwne")
    problem, remedy = "qwne: no host has a deployment of this name; there are: llama, qwen", "→ did you mean qwen?"
    if command == "status --json":
        assert json.loads(wrong.stdout)["others"] == ["llama", "qwen"]
    else:
        assert (problem in wrong.stderr, remedy in wrong.stderr) == (True, True), wrong.output
    code, programs = WRONG_NAME[command]
    assert (wrong.exit_code, typing.world.modules) == (code, programs)
    assert max(Counter((call.host, call.module) for call in typing.world.calls).values()) == 1


@pytest.mark.parametrize("command", ["stop", "logs", "logs -f"])
def test_no_name_is_offered_for_one_that_is_there(typing: Typing, command: str) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    typing.world.running = False
    assert "no host has a deployment" not in typing(f"{command} --name qwen").output


def test_a_run_that_failed_is_shown_with_time_and_cause_until_one_succeeds(typing: Typing) -> None:
    typing.world.watched = [{"dead": True}]
    assert typing("run -c qwen.yaml").exit_code == 5
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(10.0))
    cause = "gpu01: qwen/0 ended"
    shown = typing("status --name qwen")
    assert shown.exit_code == 1
    assert "qwen: failed" in shown.stdout
    assert f"failed at {when}: {cause}" in shown.stdout
    assert "  → its record says: `journalctl -k`" in shown.stdout, "any host may have written that"
    assert "stopped since" not in shown.stdout
    failure = json.loads(typing("status --name qwen --json").stdout)["failure"]
    assert (failure["at"], cause in failure["cause"], bool(failure["remedy"])) == (10.0, True, True)
    assert f"qwen: failed at {when}: {cause}" in typing("status").stdout
    refused = typing("call hi --name qwen").stderr
    assert f"qwen: its last run failed at {when}: {cause}" in refused
    assert "    → its record says: `journalctl -k`" in refused
    typing("stop --name qwen")
    assert f"failed at {when}" in typing("status --name qwen").stdout, "what is stopped already was not stopped now"
    typing.world.watched = [{"ready": True, "token": "x"}]
    assert typing("run -c qwen.yaml").exit_code == 0
    ready = json.loads(typing("status --name qwen --json").stdout)
    assert (ready["state"], ready["failure"]) == ("ready", None)


def test_status_shows_the_stage_of_an_engine_that_loads(typing: Typing) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0

    def loading(_host: Host, module: str, outputs: Iterable[Output]) -> Iterable[Output]:
        for output in outputs:
            if module == "inspect" and isinstance(output, dict):
                output["instances"]["qwen/0"] |= {"health": None, "token": False, "why": "Connection refused"}
            if module == "follow" and isinstance(output, dict):
                output["lines"] = ["Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:10<00:30, 10s/it]"]
            yield output

    typing.world.alter = loading
    shown = typing("status --name qwen")
    assert "starting" in shown.stdout
    assert "loading weights, 25 %" in shown.stdout
    assert json.loads(typing("status --name qwen --json").stdout)["instances"][0]["problem"] == "loading weights, 25 %"


def test_status_shows_models_and_flags_with_v(typing: Typing) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    command = "qwen/0: vllm serve /models/qwen "
    assert command not in typing("status --name qwen").stdout
    shown = typing("status --name qwen -v").stdout
    assert command in shown
    assert "--tensor-parallel-size" in shown
