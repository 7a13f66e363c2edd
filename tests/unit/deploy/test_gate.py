"""The keys of a run with a gate."""

from __future__ import annotations

import json

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.deploy.gate import behind_gate
from flagscale_deploy.secrets import Secret
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
