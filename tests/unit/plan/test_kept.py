"""What is kept of a run: how it is written and read back, and what of a host's text is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.facts.model import TlsFile
from flagscale_deploy.plan.claims import Held
from flagscale_deploy.plan.difference import difference
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.kept import KeptRun, Secrecy, describe_run, parse_run, run_text
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.plan.running import Running
from flagscale_deploy.secrets import Redactor, Secret
from tests.unit.plan.given import RUN, TEMPLATES, host, inventory, seen

YAML = """\
experiment: {exp_name: qwen, envs: {A: b, HF_TOKEN: hf_canary_canary}}
model_args:
  qwen: {model: /models/qwen, tensor-parallel-size: 2, port: 4567, max-model-len: 4096}
deploy: {ray: auto, models: {qwen: {num_replicas: 3}}}
"""
HOSTS = inventory(host("gpu01", identity_file="/home/me/.ssh/id", secret_env={"X_TOKEN": Secret("x-canary")}), "gpu02")


def described(text: str = YAML, run_id: str = RUN, **changes: Any) -> KeptRun:
    serve = load_spec(parse_document(text, "qwen.yaml"))
    inputs = Inputs(HOSTS, serve, seen("gpu01", "gpu02"), run_id, TEMPLATES)
    inputs = replace(inputs, **changes)
    redactor = Redactor(["hf_canary_canary", "x-canary"])
    secrecy = Secrecy({"gpu01": ("X_TOKEN",), "": ("HF_TOKEN",), "tls": ()}, "ab$cd", redactor.redact)
    return describe_run(plan(inputs), inputs, secrecy, ("deploy.port=9000", "experiment.envs.HF_TOKEN=hf_x"))


def test_a_run_is_read_back_as_it_was_described() -> None:
    run = described()
    assert parse_run(run_text(run)) == run
    assert run_text(run).isascii()
    assert [server["name"] for server in run["servers"]] == ["qwen/0", "qwen/1", "qwen/2", "qwen/router"]
    first, router = run["servers"][0], run["servers"][-1]
    assert "--max-model-len=4096" in first["ranks"][0]["argv"]
    assert (first["ranks"][0]["env"]["A"], first["gpus"], first["engine"]) == ("b", {"gpu01": [0, 1]}, "vllm")
    assert (router["engine"], router["ranks"][0]["ports"]) == ("router", {"api": 30000, "metrics": 29000})
    assert (run["head"], [entry["name"] for entry in run["hosts"]]) == ("gpu01", ["gpu01", "gpu02"])
    assert run["ports"]["gpu01"]["the router of qwen"] == 30000
    assert run["versions"]["gpu01"]["vLLM"] == "0.32.0"
    assert load_spec(parse_document(run["configuration"], "x"), environ={"HF_TOKEN": "a"}).models[0].replicas == 3


def test_it_holds_no_secret_and_no_way_to_log_in() -> None:
    text = run_text(described())
    assert [word for word in ("canary", "hf_x", ".ssh", "identity") if word in text] == []
    run = described()
    assert (run["secrets"], run["complete"]) == ({"gpu01": ["X_TOKEN"], "": ["HF_TOKEN"]}, True)
    hiding = described(YAML.replace("A: b", "A: x-canary"))
    assert not hiding["complete"]
    assert "canary" not in run_text(hiding)


def test_the_same_plan_of_another_run_is_described_alike() -> None:
    other = described(run_id="20261102T120000Z-def456")
    assert {**other, "run_id": RUN} == described()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "1"}, {"servers": {}}, {"servers": [{"name": 1}]}, {"servers": [{"ranks": [{"argv": [1]}]}]},
        {"secrets": {"": "HF_TOKEN"}}, {"ray": []}, {"versions": {"gpu01": {"vLLM": 1}}}, {"hosts": [1]},
        {"hosts": [{"name": 1}]}, {"complete": 1}, {"configuration": None}, {"run_id": True},
        {"hosts": [{"deep": [[[[[[[[[1]]]]]]]]]}]},
    ],
)  # fmt: skip
def test_what_a_host_sends_is_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_run(json.dumps({**described(), **change}))


@pytest.mark.parametrize("key", ["servers", "configuration", "secret_hash"])
def test_what_is_missing_is_named(key: str) -> None:
    run: dict[str, Any] = {**described()}
    del run[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        parse_run(json.dumps(run))


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("change", ["missing", "empty"])
def test_whatever_is_missing_a_run_that_is_read_can_be_compared(change: str) -> None:
    run = described()
    for *above, last in filter(None, places(run)):
        other: Any = copy.deepcopy(run)
        holder = reduce(lambda value, key: value[key], above, other)
        if change == "missing":
            del holder[last]
        else:
            holder[last] = type(holder[last])()
        try:
            kept = parse_run(json.dumps(other))
        except ValueError:
            continue
        for outcome in (difference(kept, run), difference(run, kept)):
            assert len(outcome.history) >= len(outcome.changed)
        assert isinstance(Running({}, kept).held, Held)


@pytest.mark.parametrize(
    "path", [("servers", 0, "engine"), ("servers", 0, "ranks", 0, "argv"), ("ray", "nodes"), ("hosts", 0, "name")]
)
def test_what_is_missing_within_is_named(path: tuple[Any, ...]) -> None:
    run: Any = copy.deepcopy(described())
    del reduce(lambda value, key: value[key], path[:-1], run)[path[-1]]
    with pytest.raises(ValueError, match=f"{'.'.join(map(str, path))} is missing"):
        parse_run(json.dumps(run))


@pytest.mark.parametrize("text", ["", "[]", "x", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_run(text)


def test_half_a_character_and_keys_of_a_later_version_do_no_harm() -> None:
    run = parse_run(json.dumps({**described(), "source": "\ud800", "later": 1}))
    assert (run["source"], "later" in run) == ("?", False)


def test_certificates_are_digests() -> None:
    facts = seen("gpu01", "gpu02")
    facts["gpu01"] = replace(
        facts["gpu01"], tls_files={"/tls/cert.pem": TlsFile(hash="abc"), "/tls/key.pem": TlsFile()}
    )
    assert described(facts=facts)["tls"] == {"gpu01:/tls/cert.pem": "abc"}
