from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pytest

from flagscale_deploy.deploy.lock import lock, operator, unlock
from flagscale_deploy.deploy.probe_hosts import facts_of, observe, raise_failures
from flagscale_deploy.deploy.records import record_of
from flagscale_deploy.errors import HostsUnreachableError, LockedError, LockLostError, RemoteError, UnreachableError
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support import shell
from tests.fakes import FakeFleet, Output, silence_until, untyped
from tests.other_user import as_nobody, needs_root
from tests.unit.deploy.given import HOSTS, PLAN, answering, held
from tests.unit.plan.given import facts as facts_given
from tests.unit.plan.given import host, inventory, model, planned, seen, spec

PROBED = {**asdict(facts_given("gpu01")), "user": "u"}


def test_a_record_is_enough_to_find_and_end_a_deployment_from_anywhere() -> None:
    record = record_of(PLAN, "gpu01", seen(*HOSTS), ("HF_TOKEN",))
    assert json.loads(json.dumps(record)) == record
    assert record["deployment"] == "qwen"
    assert record["digest"] == PLAN.digest
    assert (record["head"], record["hosts"]) == ("gpu01", ["gpu01", "gpu02"])
    assert record["roles"] == ["ray-head", "engine"]
    assert record["gpus"] == list(range(8))
    assert record["ports"] == {"qwen/0": 4567, "ray": 6379, "dashboard": 8265, "ray-client": 10001, "ray-agent": 52365}
    assert record["versions"] == {"python": "3.11.7", "ray": "2.60.0", "vllm": "0.32.0"}
    (instance,) = record["instances"]
    assert (instance["driver"], instance["local_url"], instance["script"]) == (
        "gpu01", "http://127.0.0.1:4567", "vllm_serve_qwen_0.sh",
    )  # fmt: skip


def test_a_workers_record_has_its_own_roles_and_ports_and_the_same_instances() -> None:
    head, worker = (record_of(PLAN, name, seen(*HOSTS), ()) for name in HOSTS)
    assert worker["roles"] == ["ray-worker"]
    assert worker["ports"] == {"ray-agent": 52365}
    assert worker["instances"] == head["instances"]


def test_a_record_holds_no_secret() -> None:
    made = planned(inventory("gpu01"), spec(model(), secret_env={"HF_TOKEN": Secret("hf_abcdef")}))
    record = record_of(made, "gpu01", {}, ("HF_TOKEN",))
    assert record["secrets"] == ["HF_TOKEN"]
    assert "hf_abcdef" not in json.dumps(record)


def test_the_lock_is_held_for_the_length_of_the_block() -> None:
    fleet = FakeFleet(answering(lock=held), HOSTS)
    with lock(fleet, "gpu01", "qwen", "run"):
        (running,) = fleet.connections["gpu01"].running
        assert not running.closed
    assert running.closed
    (call,) = fleet.sent("lock")
    assert call.args["holder"]["what"] == "run"


def test_a_lock_that_another_holds_names_its_holder() -> None:
    holder = {"who": "bob@ops", "what": "run", "since": "2026-11-01 12:00:00"}
    fleet = FakeFleet(answering(lock=lambda _host, _args: [{"locked": False, "holder": holder}]))
    with pytest.raises(LockedError) as raised:
        with lock(fleet, "gpu01", "qwen", "stop"):
            pytest.fail("it is not ours")
    assert raised.value.exit_code == 6
    assert str(raised.value) == (
        "gpu01: qwen is locked: bob@ops has been running `run` since 2026-11-01 12:00:00\n"
        "    → wait for it (--lock-timeout), or end that command; "
        "if it is gone: flagscale-deploy unlock, with the same hosts and --name qwen"
    )


def test_a_lock_whose_holder_has_not_written_yet() -> None:
    fleet = FakeFleet(answering(lock=lambda _host, _args: [{"locked": False, "holder": {}}]))
    with pytest.raises(LockedError, match="somebody has been running a command since a moment ago"):
        with lock(fleet, "gpu01", "qwen", "stop"):
            pytest.fail("it is not ours")


def test_a_lock_that_nobody_answers_is_an_error() -> None:
    fleet = FakeFleet(answering(lock=lambda _host, _args: []))
    with pytest.raises(RemoteError, match="without a reply"):
        with lock(fleet, "gpu01", "qwen", "stop"):
            pytest.fail("it is not ours")


def test_an_error_in_the_block_lets_go_of_the_lock_and_passes() -> None:
    fleet = FakeFleet(answering(lock=held))
    with pytest.raises(KeyboardInterrupt):
        with lock(fleet, "gpu01", "qwen", "run"):
            raise KeyboardInterrupt
    assert fleet.connections["gpu01"].running[0].closed


def test_a_probe_is_told_the_environment_that_scripts_will_have() -> None:
    hosts = [host("gpu01", venv="/v", env={"B": "host"}, before_start="b"), host("gpu02")]
    fleet = FakeFleet(answering(probe=lambda _host, _args: [{**PROBED, "from_the_future": 1}]), hosts)
    env = {"A": "1", "B": "spec", "C": shell.Expanding("$A"), "D": "$A"}
    observations = observe(fleet, spec(env=env, before_start="a"))
    assert [observation.facts and observation.facts.user for observation in observations.values()] == ["u", "u"]
    args = {call.host: call.args for call in fleet.calls}
    environment = {"venv": "/v", "before_start": "a\nb", "env": {"A": "1", "B": "host", "D": "$A"}}
    environment["exports"] = 'export C="${A-}"\n'
    looked_at = {"models": ["/models/qwen"], "tls_files": [], "deployment": "qwen", "hosts": ["gpu01", "gpu02"]}
    assert args["gpu01"] == {"host": "gpu01", **environment, **looked_at}
    assert args["gpu02"]["venv"] is None


def test_a_probe_is_asked_for_models_that_are_paths_and_no_names() -> None:
    names = ["/models/a", "Qwen/Qwen3-8B", "~/b", "./c", "../d.gguf", "/models/a", "gpt2"]
    models = [model(f"m{number}", model=name) for number, name in enumerate(names)]
    fleet = FakeFleet(answering(probe=lambda _host, _args: [{"user": "u"}]))
    observe(fleet, spec(*models))
    assert fleet.calls[0].args["models"] == ["/models/a", "~/b", "./c", "../d.gguf"]
    observe(fleet)
    assert fleet.calls[1].args["models"] == []


def test_what_a_login_prints_and_when_the_answer_came_are_facts() -> None:
    fleet = FakeFleet(
        answering(probe=lambda _host, _args: [b"Welcome to gpu01!\n", {**PROBED, "clock": 7.0}, b"bye\n"])
    )
    facts = observe(fleet, clock=lambda: 12.5)["gpu01"].facts
    assert facts is not None
    assert (facts.noise, facts.asked_at, facts.clock) == ("Welcome to gpu01!", 12.5, 7.0)


def test_facts_of_every_host_or_all_that_is_wrong() -> None:
    facts = Facts(user="u")
    assert facts_of({"a": Observation("a", facts)}) == {"a": facts}
    lost = [UnreachableError(name, "no answer") for name in "bc"]
    with pytest.raises(HostsUnreachableError) as raised:
        facts_of({
            "a": Observation("a", error=RemoteError("a", "no python")),
            "b": Observation("b", error=lost[0]),
            "c": Observation("c", error=lost[1]),
        })  # fmt: skip
    assert [error.host for error in raised.value.errors] == ["a", "b", "c"]
    assert raised.value.exit_code == 3
    with pytest.raises(RemoteError, match="a: no python"):
        facts_of({"a": Observation("a", error=RemoteError("a", "no python")), "b": Observation("b", facts)})


def test_where_several_hosts_fail_no_error_is_lost() -> None:
    with pytest.raises(Exception) as raised:
        raise_failures({"a": RemoteError("a", "no python"), "b": RemoteError("b", "disk full"), "c": 1})
    assert "a: no python" in str(raised.value)
    assert "b: disk full" in str(raised.value)


def test_a_command_that_is_displaced_does_nothing_more() -> None:
    """Neither what waits on a host, nor what would be done next; and the error says by whom."""
    displaced = threading.Event()

    def held_until_displaced(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"locked": True}
        yield from silence_until(displaced)
        yield {"displaced": {"who": "eve@desk", "since": "2026-11-24 23:00:00 +0000"}}

    def watching(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        displaced.set()
        while True:
            yield None

    fleet = FakeFleet(answering(lock=held_until_displaced, watch=watching), HOSTS)
    with lock(fleet, "gpu01", "qwen", "run"):
        with pytest.raises(LockLostError, match=r"gpu01: the lock of qwen was lost: eve@desk released it") as raised:
            fleet.call(untyped("watch"), lambda _host: {}, timeout=30)
        assert raised.value.exit_code == 6
        with pytest.raises(LockLostError):
            fleet.call(untyped("launch"), lambda _host: {"script": "s", "detached": True}, timeout=30)
        with pytest.raises(LockLostError):
            fleet.connection("gpu02")
    assert fleet.sent("launch") == []
    fleet.connection("gpu02")  # what holds no lock has lost none


def test_a_lock_whose_program_ends_is_lost_and_one_that_is_cut_off_is_the_heads_affair() -> None:
    def ends(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"locked": True}

    fleet = FakeFleet(answering(lock=ends), HOSTS)
    with lock(fleet, "gpu01", "qwen", "run"):
        assert fleet.cancelled.wait(10)
        with pytest.raises(LockLostError, match="has ended"):
            fleet.connection("gpu02")

    cut = threading.Event()

    def breaks(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"locked": True}
        cut.set()
        yield UnreachableError("gpu01", "the SSH connection was lost")

    fleet = FakeFleet(answering(lock=breaks), HOSTS)
    with lock(fleet, "gpu01", "qwen", "stop"):
        assert cut.wait(10)
        fleet.connection("gpu02")


def test_a_lock_that_cannot_be_had_says_why() -> None:
    problem = "/home/ubuntu/.flagscale-deploy: Read-only file system"
    fleet = FakeFleet(answering(lock=lambda _host, _args: [{"locked": False, "problem": problem}]))
    with pytest.raises(RemoteError, match=re.escape(f"gpu01: qwen cannot be locked: {problem}")):
        with lock(fleet, "gpu01", "qwen", "run"):
            pytest.fail("it is not ours")


HOLDER = {"who": "bob@ops", "from": "10.0.0.9", "what": "run", "since": "2026-11-24 22:00:00 +0000"}
SAID = "qwen is locked: bob@ops (from 10.0.0.9) has been running `run` since 2026-11-24 22:00:00 +0000"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"state": "held", "pid": 7, "silent": 2.4}, f"{SAID}; it still runs (pid 7), last sign of life 2 s ago"),
        ({"state": "survives", "pid": 7, "silent": None}, f"{SAID}; pid 7 did not end"),
        ({"state": "elsewhere", "pid": None, "filesystem": "nfs4"}, "another machine with this home directory (nfs4)"),
    ],
)
def test_a_lock_that_stays_names_its_holder(answer: dict[str, Any], text: str) -> None:
    fleet = FakeFleet(
        answering(unlock=lambda _host, _args: [{"holder": HOLDER, "silent": None, "filesystem": "", **answer}])
    )
    with pytest.raises(LockedError) as raised:
        unlock(fleet, "gpu01", "qwen", force=False)
    assert text in str(raised.value)
    assert raised.value.exit_code == 6


def test_a_lock_that_is_free_or_was_ended_is_told() -> None:
    for state in ("free", "ended"):
        answers = [{"state": state, "holder": HOLDER, "pid": None, "silent": 50.0, "filesystem": ""}]
        fleet = FakeFleet(answering(unlock=lambda _host, _args, answers=answers: answers))
        done = unlock(fleet, "gpu01", "qwen", force=True)
        assert (done.state, done.holder["who"], done.silent) == (state, "bob@ops", 50.0)
        assert fleet.sent("unlock")[0].args["by"]["what"] == "unlock"


@needs_root
def test_an_operator_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as any user."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert as_nobody(operator, 54321).startswith("uid-54321@")
