"""`deploy.gate` in plans: the proxy before all servers, and where these listen behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import ModelSpec, PoolSpec, RouterSpec, ServeSpec, TlsSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.rank import flag_of
from flagscale_deploy.secrets import Secret
from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec, taken

ONE, TWO = inventory("gpu01"), inventory("gpu01", "gpu02")
TWINS = model("qwen", tp=8, replicas=2, port=8000)
DEFAULT = GateSpec()
HOME = {"gpu01": facts("gpu01", home="/home/me")}
STATE = "/home/me/.flagscale-deploy/qwen/gpu01"


def gated(*models: ModelSpec, gate: GateSpec = DEFAULT, **settings: Any) -> ServeSpec:
    return spec(*models, gate=gate, **settings)


def settings(plan: Plan) -> Mapping[str, Any]:
    """Return gate.json as it is sent."""
    content: Mapping[str, Any] = json.loads(plan.scripts["gpu01"]["gate.json"])
    return content


def listens(plan: Plan) -> list[tuple[str, str | None]]:
    return [(rank.host, flag_of(rank.argv, "host")) for one in plan.instances for rank in one.ranks if rank.answers]


def test_a_single_engine_listens_on_loopback_and_clients_see_the_gate() -> None:
    made = planned(ONE, gated(model(tp=1)), HOME)
    assert made.gate is not None
    assert listens(made) == [("gpu01", "127.0.0.1")]
    assert [(server.name, server.endpoint) for server in made.entrances] == [("gate", "http://10.0.0.1:8080/v1")]
    assert [server.name for server in made.servers] == ["qwen/0", "gate"]
    assert settings(made) == {
        "deployment": "qwen",
        "run_id": made.run_id,
        "host": "0.0.0.0",
        "port": 8080,
        "metrics_port": 8081,
        "models": {"/models/qwen": ["http://127.0.0.1:8000"]},
        "paths": ["/v1/*", "/health", "/version"],
        "internal_key": f"{STATE}/secrets/internal-key",
        "hold": 0.0,
        "access_log": f"{STATE}/logs/gate_access.log",
    }
    assert [(stage.name, stage.after) for stage in made.stages] == [("serve", ()), ("route", ("serve",))]
    (step,) = made.stages[-1].steps
    assert (step.host, step.script, step.role, step.detached) == ("gpu01", "gate.sh", "gate", True)
    assert 'exec python3 "$state/gate" "$state/scripts/gate.json"' in made.scripts["gpu01"]["gate.sh"]
    shown: Any = plan_json(made)["gate"]
    assert (shown["endpoint"], shown["guarded"]) == ("http://10.0.0.1:8080/v1", False)


def test_without_a_gate_nothing_is_different() -> None:
    made = planned(TWO, spec(TWINS))
    assert made.gate is None
    assert {host for _, host in listens(made)} == {None}
    assert {name for names in made.scripts.values() for name in names if name.startswith("gate")} == set()
    assert plan_json(made)["gate"] is None


def test_a_router_listens_on_loopback_and_engines_elsewhere_on_the_data_network() -> None:
    made = planned(TWO, gated(TWINS))
    (router,) = made.routers
    assert listens(made) == [("gpu01", "127.0.0.1"), ("gpu02", "10.0.0.2")]
    assert router.workers == ("http://127.0.0.1:8000", "http://10.0.0.2:8000")
    assert flag_of(router.argv, "host") == "127.0.0.1"
    assert settings(made)["models"] == {"/models/qwen": ["http://127.0.0.1:30000"]}
    assert [step.role for step in made.stages[-1].steps] == ["router", "gate"]
    assert [server.name for server in made.entrances] == ["gate"]


def test_without_a_router_it_shares_requests_out_itself() -> None:
    made = planned(TWO, gated(TWINS, router=RouterSpec(enabled=False)))
    assert settings(made)["models"] == {"/models/qwen": ["http://127.0.0.1:8000", "http://10.0.0.2:8000"]}


def test_every_name_of_a_model_is_one_that_requests_may_have() -> None:
    adapters = ["sql=/adapters/sql", {"name": "chat", "path": "/adapters/chat"}]
    first = model("a", tp=1, port=1, engine_args={"served-model-name": ["big", "alias"], "lora-modules": adapters})
    made = planned(ONE, gated(first, model("b", tp=1, port=2)))
    here = {name: urls[0].rpartition(":")[2] for name, urls in settings(made)["models"].items()}
    assert here == {"big": "1", "alias": "1", "sql": "1", "chat": "1", "/models/b": "2"}


def test_two_models_of_one_name_are_a_fault() -> None:
    twice = {"engine_args": {"served-model-name": "x"}}
    with pytest.raises(InputError) as raised:
        planned(ONE, gated(model("a", tp=1, **twice), model("b", tp=1, **twice)))
    (fault,) = raised.value.faults
    assert (fault.where, fault.problem) == (
        "qwen.yaml: model_args.b.served-model-name",
        "x is a name of a too, and the gate chooses a server by it",
    )


@pytest.mark.parametrize("flags", [{"engine_args": {"host": "0.0.0.0"}}, {"action_args": ("host=0.0.0.0",)}])
def test_where_the_user_says_so_an_engine_listens_everywhere(flags: dict[str, Any]) -> None:
    made = planned(ONE, gated(model(tp=1, **flags)))
    assert listens(made) == [("gpu01", "0.0.0.0")]
    assert settings(made)["models"] == {"/models/qwen": ["http://10.0.0.1:8000"]}


def test_an_engine_that_it_cannot_reach_is_a_fault() -> None:
    twins = model("qwen", tp=8, replicas=2, engine_args={"host": "127.0.0.1"})
    (fault,) = faults_of(TWO, gated(twins, router=RouterSpec(enabled=False)))
    assert fault.problem == "qwen/1 on gpu02 listens on 127.0.0.1 only, so the gate on gpu01 cannot reach it"
    assert "deploy.gate: false" in fault.remedy


def test_engines_of_pools_tell_each_other_an_address_of_the_data_network() -> None:
    made = planned(TWO, gated(model(tp=8, prefill=PoolSpec(hosts="gpu01"), decode=PoolSpec(hosts="gpu02"))))
    assert listens(made) == [("gpu01", "10.0.0.1"), ("gpu02", "10.0.0.2")]


@pytest.mark.parametrize(("gate", "sent"), [(DEFAULT, True), (None, False)])
def test_the_router_of_pools_sends_the_key_of_the_run_where_only_the_gate_reaches_it(
    gate: GateSpec | None, sent: bool
) -> None:
    apart = model(tp=8, prefill=PoolSpec(hosts="gpu01"), decode=PoolSpec(hosts="gpu02"))
    script = planned(TWO, spec(apart, gate=gate)).scripts["gpu01"]["router_qwen.sh"]
    assert ("OPENAI_API_KEY" in script) is sent
    assert "OPENAI_API_KEY" not in planned(TWO, gated(TWINS)).scripts["gpu01"]["router_qwen.sh"]


def test_it_has_the_certificate_and_trusts_that_of_its_engines() -> None:
    sent: dict[str, str | Secret] = {"tls.crt": "C", "tls.key": Secret("K")}
    tls = TlsSpec("tls.crt", "tls.key", "tls.crt", sent, TlsFile(self_signed=True))
    made = planned(ONE, gated(model(tp=1), tls=tls), HOME)
    assert made.gate is not None
    assert listens(made) == [("gpu01", "10.0.0.1")]
    assert (made.gate.endpoint, made.gate.local_url) == ("https://10.0.0.1:8080/v1", "https://127.0.0.1:8080")
    sent_settings = settings(made)
    assert sent_settings["tls"] == {"certfile": f"{STATE}/secrets/tls.crt", "keyfile": f"{STATE}/secrets/tls.key"}
    assert sent_settings["trust"] == f"{STATE}/secrets/tls.crt"
    assert sent_settings["models"] == {"/models/qwen": ["https://10.0.0.1:8000"]}
    alone = planned(ONE, gated(model(tp=1, engine_args={"ssl-certfile": False}), tls=TlsSpec("/both.pem")))
    assert settings(alone)["tls"] == {"certfile": "/both.pem", "keyfile": "/both.pem"}
    assert settings(alone)["models"] == {"/models/qwen": ["http://127.0.0.1:8000"]}


@pytest.mark.parametrize(
    "settings_of",
    [
        {"gate": GateSpec(keys={"alice": Secret("a-key-of-alice")})},
        {"gate": GateSpec(), "secret_env": {"VLLM_API_KEY": Secret("a-key")}},
    ],
)
def test_it_asks_for_keys_where_there_are_any_and_the_plan_has_none(settings_of: dict[str, Any]) -> None:
    made = planned(ONE, spec(model(tp=1), **settings_of), HOME)
    assert made.gate is not None
    assert made.gate.guarded
    assert settings(made)["keys"] == f"{STATE}/secrets/gate-keys.json"
    assert "a-key" not in json.dumps(plan_json(made)) + repr(made)


def test_its_ports_are_the_next_free_ones_or_those_that_are_configured() -> None:
    busy = {"gpu01": facts("gpu01", ports=(taken(8080),))}
    made = planned(ONE, gated(model(tp=1, port=8082)), busy)
    assert made.gate is not None
    assert (made.gate.port, made.gate.metrics_port) == (8081, 8083)
    asked = GateSpec(port=443, metrics_port=9100, host="10.0.0.1", paths=("/tokenize",), hold=30.0)
    made = planned(ONE, gated(model(tp=1), gate=asked))
    sent_settings = settings(made)
    assert (sent_settings["port"], sent_settings["metrics_port"], sent_settings["host"], sent_settings["hold"]) == (
        443,
        9100,
        "10.0.0.1",
        30.0,
    )
    assert sent_settings["paths"] == ["/v1/*", "/health", "/version", "/tokenize"]
    assert made.entrances[0].local_url == "http://10.0.0.1:443"
    (fault,) = faults_of(ONE, gated(model(tp=1, port=8080), gate=GateSpec(port=8080)))
    assert fault.problem == "port 8080 on gpu01 is assigned twice: to qwen/0 and the gate"


def test_it_is_restarted_as_a_router_is() -> None:
    made = planned(ONE, gated(model(tp=1), restart=RestartSpec(policy="on-failure", boot=True)))
    script = made.scripts["gpu01"]["gate.sh"]
    assert "--name=gate" in script
    assert "--health=http://127.0.0.1:8080/health" in script
    assert "--hang" not in script
    assert "gate.sh" in made.scripts["gpu01"]["boot.sh"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aiohttp": None}, "there is no aiohttp in its environment, as the gate needs it"),
        ({"python": "3.9.19"}, "there is no Python 3.10 or later in its environment, as the gate needs it"),
    ],
)
def test_a_head_that_cannot_run_it_is_a_fault(changes: dict[str, Any], problem: str) -> None:
    host_facts = seen("gpu01", "gpu02") | {"gpu01": facts("gpu01", **changes)}
    (fault,) = faults_of(TWO, gated(model(tp=1), ray="off"), host_facts)
    assert (fault.where, fault.problem, fault.check) == ("gpu01", problem, "gate-installed")
    lacking = seen("gpu01", "gpu02") | {"gpu02": facts("gpu02", **changes)}
    assert planned(TWO, gated(model(tp=1), ray="off"), lacking).gate is not None
