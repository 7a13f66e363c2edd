"""The JSON Schemas of `schema`, with the validator that editors' language servers stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flagscale_deploy.cli import cli
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory
from tests.unit.sources import ROOT

jsonschema = pytest.importorskip("jsonschema")

EXAMPLES = [path for path in sorted((ROOT / "examples").rglob("*.yaml")) if path.parent.name != "ci"]
INVENTORIES = sorted((ROOT / "inventories").glob("*.yaml"))
MODEL = "model_args: {m: {model-tag: /m, port: 8000}}\n"


def schema(kind: str) -> Any:
    result = CliRunner().invoke(cli, ["schema", kind])
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def serve() -> Any:
    return jsonschema.Draft202012Validator(schema("serve"))


@pytest.fixture(scope="module")
def inventory() -> Any:
    return jsonschema.Draft202012Validator(schema("inventory"))


@pytest.mark.parametrize("kind", ["serve", "inventory"])
def test_a_schema_is_one(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_fit(serve: Any, path: Path) -> None:
    serve.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.name)
def test_inventories_fit(inventory: Any, path: Path) -> None:
    inventory.validate(yaml.safe_load(path.read_text()))


SERVE = {
    "deploy: {ray: auto, router: round_robin, restart: on-failure, warm: off}": True,
    "deploy: {ray: {mode: never, port: 6379}, router: {policy: random}}": True,
    "deploy: {restart: {backoff: 10s, max: 3}, router: {retry-max-retries: 3}}": True,
    "deploy: {timeouts: {ready: 45m, stop: 30}, port: auto, command-line-mode: true}": True,
    "deploy: {models: {m: {num_gpus: '${oc.env:GPUS}', num-replicas: auto}}}": True,
    "experiment: {exp_dir: 'outputs/${experiment.exp_name}', exp_name: q}": True,
    "deploy:": True,
    "experiment: {exp_name: 7, runner: {ssh_port: 22, nnodes: '2:4'}, envs: {A: 1}}": True,
    "action: stop": True,
    "deploy: {nosuch: 1}": False,
    "deploy: {timeouts: {ready: [1]}}": False,
    "deploy: {port: 70000.5}": False,
    "deploy: {ray: sometimes}": False,
    "experiment: {runner: {ssh_port: 0}}": False,
    "experiment: {runner: {ssh_prot: 22}}": False,
    "action: destroy": False,
    "nosuch: 1": False,
}
INVENTORY = {
    "hosts: [gpu01, 'ubuntu@gpu02:2222', {name: gpu03, gpus: 8, host_key_checking: off, env: {A: 1, B: true}}]": True,
    "hosts: [gpu01]\ngroups: {head: gpu01, rack1: [gpu01]}\ndefaults:": True,
    "all: {children: {gpu: {hosts: {'gpu[01:16]': {ansible_port: 22, gpus: '{{ 8 }}', mine: [1]}, gpu17:}}}}": True,
    "all: {vars: {gpus: 8, anything: {a: b}}, hosts: gpu01}": True,
    "gpu: {hosts: {gpu01: }}": True,
    "hosts: [{name: gpu01, gpu: 8}]": False,
    "hosts: [{gpus: 8}]": False,
    "hosts: [{name: gpu01, port: 0}]": False,
    "hosts: [gpu01]\ndefaults: {address: 10.0.0.1}": False,
    "all: {host: {gpu01: }}": False,
    "all: {vars: {fsd_connection: telnet}}": False,
}


@pytest.mark.parametrize(("text", "fits"), SERVE.items())
def test_the_serve_schema_agrees_with_the_tool(serve: Any, tmp_path: Path, text: str, fits: bool) -> None:
    whole = MODEL + text + "\n"
    assert serve.is_valid(yaml.safe_load(whole)) is fits
    (tmp_path / "serve.yaml").write_text(whole)
    assert loads(lambda: load_spec(tmp_path / "serve.yaml", environ={"GPUS": "1"})) is fits


@pytest.mark.parametrize(("text", "fits"), INVENTORY.items())
def test_the_inventory_schema_agrees_with_the_tool(inventory: Any, tmp_path: Path, text: str, fits: bool) -> None:
    assert inventory.is_valid(yaml.safe_load(text)) is fits
    (tmp_path / "hosts.yaml").write_text(text)
    assert loads(lambda: load_inventory(tmp_path / "hosts.yaml")) is fits


def loads(load: Callable[[], object]) -> bool:
    try:
        load()
    except InputError:
        return False
    return True
