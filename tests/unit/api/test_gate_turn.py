"""A gate comes before a deployment that runs, or goes: `update`, `rollback`, `--resume` on hosts that are functions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api import ChangeFailedError, ChangeOptions
from flagscale_deploy.errors import CheckError
from flagscale_deploy.inventory.model import Host
from tests.fakes import Output
from tests.unit.api.changing_world import OPTIONS
from tests.unit.api.test_updating import Changing, refusal

GATE, NO_GATE = "deploy.gate=true", "deploy.gate=false"
SAME_PORT = "deploy.gate={port: 30000}"
KEY = "+deploy.secrets=[VLLM_API_KEY]"
ALLOWED = ChangeOptions(watch_for=0.01, allow_downtime=True)
KEPT = ChangeOptions(watch_for=0.01, allow_downtime=True, keep_on_failure=True)
ALL = ["gate", "qwen/router", "qwen/0", "qwen/1"]


class Turning(Changing):
    """The same, with a gate that does what it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files: dict[str, dict[str, str]] = {"gpu01": {}, "gpu02": {}}
        self.programs["route_gate"] = lambda _host, _args: [{"problem": "", "open": 0, "restart_needed": False}]

    def launch(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self.files[host.name] |= {path: text for path, (text, _) in args["files"].items()}
        if "change" not in self.records.get(host.name, {}):
            return super().launch(host, args)
        return [{"log": "/l", "pid": 5, "start_ticks": 1}, {"exit_code": None, "tail": []}]  # the record stays

    def change_record(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        self.files[host.name] |= {path: text for path, (text, _) in args.get("files", {}).items()}
        return super().change_record(host, args)

    @property
    def fronts(self) -> dict[str, str]:
        """Return where routers and the gate of all records answer clients."""
        (routers,) = {str(record["routers"]) for record in self.records.values()}
        return {front["name"]: front["endpoint"] for front in self.records["gpu01"]["routers"] if routers}

    @property
    def keys(self) -> set[str]:
        """Return the variables with secrets of all hosts."""
        return {files["secrets/env"].strip() for files in self.files.values()}

    def scripts(self, module: str) -> list[str]:
        """Return what was started or stopped of servers, in order."""
        calls = [call for call in self.calls if call.module == module]
        if module == "launch":
            return [call.args["script"] for call in calls]
        return [script for call in calls for script in call.args["scripts"]]


@pytest.fixture
def world(desk: Path) -> Turning:
    return Turning(desk)


def test_a_gate_that_comes_is_told_with_its_outage_and_where_clients_go(world: Turning) -> None:
    world.run()
    shown: list[str] = []
    request = world.wanted(GATE)
    with pytest.raises(CheckError) as raised:
        api.update(request, OPTIONS, ChangeOptions(), lock_wait=0, say=lambda event: shown.append(event.text))
    assert (
        "nothing would serve qwen while the gate comes and qwen/router, qwen/0, qwen/1 restart, for about 30s"
        in str(raised.value)
    )
    assert "allow it with --allow-downtime" in str(raised.value)
    assert "gate would be added: clients have to go to gpu01:8080 instead of gpu01:30000" in shown
    assert any(line.startswith("qwen/1 would restart: a gate comes before it") for line in shown)
    assert (world.did("stop_group"), world.did("change_record")) == ([], [])


def test_all_stop_before_any_starts_with_the_gates_key_and_a_rollback_goes_back(world: Turning) -> None:
    first = world.run()
    before = world.fronts
    world.calls.clear()
    world.update(GATE, how=ALLOWED)
    assert world.scripts("stop_group") == ["router_qwen.sh", "vllm_serve_qwen_0.sh", "vllm_serve_qwen_1.sh"]
    assert sorted(world.scripts("launch")) == [
        "gate.sh", "router_qwen.sh", "vllm_serve_qwen_0.sh", "vllm_serve_qwen_1.sh",
    ]  # fmt: skip
    last_stop = max(at for at, call in enumerate(world.calls) if call.module == "stop_group")
    assert last_stop < min(at for at, call in enumerate(world.calls) if call.module == "launch")
    assert world.fronts == {"qwen/router": "http://127.0.0.1:30000/v1", "gate": "http://10.0.0.1:8080/v1"}
    key, settings = (world.files["gpu01"][name] for name in ("secrets/internal-key", "scripts/gate.json"))
    assert json.loads(settings)["models"] == {"/models/qwen": ["http://127.0.0.1:30000"]}
    assert world.keys == {f"VLLM_API_KEY={key}"}
    assert world.changes == []

    back = api.rollback(world.named(), None, OPTIONS, ALLOWED).change_id
    assert world.fronts == before
    assert (world.keys, world.files["gpu01"]["secrets/internal-key"]) == ({""}, "")
    assert f"back to {first}" in world.events["gpu01"][-1]["reason"]
    assert world.configurations == {back}


def test_a_gate_may_take_the_port_of_the_router(world: Turning) -> None:
    world.run()
    made = world.update(SAME_PORT, how=ALLOWED)
    assert world.fronts == {"qwen/router": "http://127.0.0.1:30001/v1", "gate": "http://10.0.0.1:30000/v1"}
    (gate,) = (change for change in made.difference.servers if change.name == "gate")
    assert gate.reasons == ("clients go on with gpu01:30000",)


@pytest.mark.parametrize("comes", [True, False])
def test_what_does_not_start_is_put_back_with_all_that_it_had(world: Turning, comes: bool) -> None:
    old, new = (NO_GATE, GATE) if comes else (GATE, NO_GATE)
    first = world.run(old)
    before = world.fronts
    world.does_not_start("gpu02")
    world.calls.clear()
    with pytest.raises(ChangeFailedError) as raised:
        world.update(new, how=ALLOWED)
    assert raised.value.put_back
    assert (world.configurations, world.changes, world.fronts) == ({first}, [], before)
    restored = {
        (call.host, script)
        for call in world.calls
        if call.args.get("before") == "restore"
        for script in call.args.get("scripts", ())
    }
    gate = set() if comes else {("gpu01", "gate.sh"), ("gpu01", "gate.json")}
    assert restored == {
        ("gpu01", "router_qwen.sh"), ("gpu01", "vllm_serve_qwen_0.sh"), ("gpu02", "vllm_serve_qwen_1.sh"), *gate,
    }  # fmt: skip


@pytest.mark.parametrize("comes", [True, False])
@pytest.mark.parametrize("ends", ["resume", "rollback"])
def test_what_an_operator_left_is_finished_or_put_back(world: Turning, comes: bool, ends: str) -> None:
    old, new = (NO_GATE, GATE) if comes else (GATE, NO_GATE)
    world.run(old)
    before = world.fronts
    world.does_not_start("gpu02")
    with pytest.raises(ChangeFailedError):
        world.update(new, how=KEPT)
    assert {str((sorted(change["groups"]), change["step"])) for change in world.changes} == {
        str((sorted(ALL), "start"))
    }
    world.calls.clear()
    getattr(world, ends)()
    assert world.changes == []
    assert (world.fronts == before, "gate" in world.fronts) == (ends == "rollback", comes == (ends == "resume"))
    assert world.did("drain") == [], "what was left does not serve"


def test_a_client_s_key_stays_with_the_gate_and_no_value_of_it_is_kept(world: Turning) -> None:
    world.variables = {"VLLM_API_KEY": "sk-of-everyone"}
    world.run(KEY)
    assert world.keys == {"VLLM_API_KEY=sk-of-everyone"}
    made = world.update(KEY, GATE, how=ALLOWED)
    assert "VLLM_API_KEY" not in " ".join(made.difference.lines), "it goes on to be what clients send"
    assert world.keys == {f"VLLM_API_KEY={world.files['gpu01']['secrets/internal-key']}"}
    assert "sk-of-everyone" in world.files["gpu01"]["secrets/gate-keys.json"]
    assert "use its file: `update`" in refusal(CheckError, world.rollback)
    world.update(KEY, how=ALLOWED)
    assert world.keys == {"VLLM_API_KEY=sk-of-everyone"}
    assert world.files["gpu01"]["secrets/gate-keys.json"] == ""
