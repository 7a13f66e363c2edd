"""The keys of a run with a gate."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.deploy.gate import behind_gate, behind_names, change_gate, running_key
from flagscale_deploy.errors import DeployError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Redactor, Secret
from tests.fakes import FakeFleet, Output
from tests.unit.api.mutations import mutated
from tests.unit.deploy.given import HOSTS, answering
from tests.unit.plan.given import inventory, model, planned, spec

ALICE, OLD = Secret("sk-of-alice"), Secret("sk-of-everyone")
GATE = GateSpec(keys={"alice": ALICE})
PLAN = planned(inventory("gpu01", "gpu02"), spec(model(tp=1), gate=GATE)).gate


def test_servers_get_a_key_that_no_client_has_and_that_is_another_in_each_run() -> None:
    assert PLAN is not None
    keys = set()
    for _ in range(3):
        secrets, files = behind_gate(PLAN, GATE, {"gpu01": {"HF_TOKEN": OLD}, "gpu02": {}})
        internal = secrets["gpu01"]["VLLM_API_KEY"]
        assert secrets == {"gpu01": {"HF_TOKEN": OLD, "VLLM_API_KEY": internal}, "gpu02": {"VLLM_API_KEY": internal}}
        assert files["secrets/internal-key"] == internal.reveal()
        assert json.loads(files["secrets/gate-keys.json"]) == {"alice": "sk-of-alice", "deployment": internal.reveal()}
        keys.add(internal.reveal())
    assert len(keys) == 3
    assert min(map(len, keys)) == 64


def test_a_key_that_was_meant_for_the_servers_is_one_of_the_gates() -> None:
    assert PLAN is not None
    secrets, files = behind_gate(PLAN, GateSpec(), {"gpu01": {"VLLM_API_KEY": OLD}})
    assert secrets["gpu01"]["VLLM_API_KEY"] != OLD
    assert json.loads(files["secrets/gate-keys.json"])["api-key"] == "sk-of-everyone"


def test_without_keys_of_clients_the_gate_asks_for_none() -> None:
    assert PLAN is not None
    secrets, files = behind_gate(PLAN, GateSpec(), {"gpu01": {}})
    assert list(files) == ["secrets/internal-key"]
    assert secrets["gpu01"]["VLLM_API_KEY"].reveal() == files["secrets/internal-key"]


def test_servers_that_start_later_get_the_key_of_the_gate_that_runs() -> None:
    assert PLAN is not None
    redactor = Redactor()
    key = running_key(FakeFleet(answering(internal_key=key_of("a1" * 32)), HOSTS), "qwen", "gpu01", redactor)
    secrets, files = behind_gate(PLAN, GATE, {"gpu01": {}, "gpu02": {}}, key)
    assert {env["VLLM_API_KEY"] for env in secrets.values()} == {key}
    assert files["secrets/internal-key"] == "a1" * 32
    assert json.loads(files["secrets/gate-keys.json"])["deployment"] == "a1" * 32
    assert "a1a1" not in redactor.redact(f"key {'a1' * 32}")


@pytest.mark.parametrize("text", ["", "short", "a" * 31 + "\n", "é" * 40, "a" * 5000])
def test_what_is_no_key_of_a_gate_is_refused_and_not_quoted(text: str) -> None:
    fleet = FakeFleet(answering(internal_key=key_of(text)), HOSTS)
    with pytest.raises(RemoteError) as failure:
        running_key(fleet, "qwen", "gpu01", Redactor())
    assert not text or text not in str(failure.value)


def key_of(text: str) -> Callable[[Host, dict[str, Any]], Iterable[Output]]:
    def reply(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"key": text}

    return reply


@pytest.mark.parametrize("program", ["internal_key", "route_gate"])
def test_no_reply_of_a_host_ends_in_anything_but_its_error(program: str) -> None:
    replies = {"internal_key": {"key": "a1" * 32}, "route_gate": {"problem": "", "open": 2, "restart_needed": False}}
    chance = random.Random(program)
    for _ in range(200):
        reply = mutated(chance, replies[program])
        fleet = FakeFleet(answering(**{program: lambda _host, _args, sent=reply: [sent]}), HOSTS)
        with suppress(DeployError):
            if program == "internal_key":
                assert len(running_key(fleet, "qwen", "gpu01", Redactor()).reveal()) >= 32
            else:
                assert change_gate(fleet, "qwen", "gpu01")["open"] >= 0


def test_a_gate_is_asked_for_what_its_names_have_and_its_problem_is_raised() -> None:
    def refuses(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"problem": "" if args["add"] else "it is gone", "open": 2, "restart_needed": False}

    assert PLAN is not None
    (url,) = {url for urls in PLAN.models.values() for url in urls}
    fleet = FakeFleet(answering(route_gate=refuses), HOSTS)
    add = behind_names(PLAN, [url, "http://10.0.0.9:1"])
    assert add == {name: [url] for name in PLAN.models}
    assert behind_names(PLAN, []) == {}
    assert change_gate(fleet, "qwen", "gpu01", add=add)["open"] == 2
    with pytest.raises(RemoteError, match="gpu01: it is gone"):
        change_gate(fleet, "qwen", "gpu01", remove=[url])
    assert [call.args["remove"] for call in fleet.sent("route_gate")] == [[], [url]]
