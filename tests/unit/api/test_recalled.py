"""What hosts keep of a run is read again, and nothing of this machine's environment with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.api.recalled import HELD_BY_HOSTS, recall
from flagscale_deploy.api.request import Options, Request, load_request
from flagscale_deploy.errors import CheckError
from tests.unit.plan.test_kept import described

KEPT: Any = {
    **described(),
    "deployment": "two",
    "secrets": {"": ["HF_TOKEN"]},
    "configuration": """\
experiment: {exp_name: two, exp_dir: /somewhere/else, envs: {HF_TOKEN: '${oc.env:HF_TOKEN}', A: '${oc.env:PRIVATE}'}}
model_args: {qwen: {model: /models/qwen, port: 4567}}
""",
}


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setenv("PRIVATE", "of-this-machine")
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("hosts: [gpu01]\n")
    return load_request(Options(inventory=str(inventory), name="two"))


def test_no_variable_of_this_machine_is_read_and_nothing_is_written_where_it_says(hosts: Request) -> None:
    request = recall(KEPT, KEPT, hosts)
    assert request.serve.secret_env["HF_TOKEN"].reveal() == HELD_BY_HOSTS
    assert "of-this-machine" not in repr(request.serve.resolved)
    assert request.serve.exp_dir == "outputs/two"
    assert request.inventory.names == ("gpu01",)


def test_no_file_with_a_secret_is_read_and_clients_of_the_gate_are_told_apart(hosts: Request) -> None:
    deploy = """\
deploy:
  secret_files: {VLLM_API_KEY: '[REDACTED]'}
  gate: {keys: {bob: '${oc.env:BOB}', eve: '${oc.env:EVE}'}, key_files: {alice: not-here}}
"""
    run: Any = {**KEPT, "configuration": KEPT["configuration"] + deploy}
    serve = recall(run, run, hosts).serve
    assert serve.secret_env["VLLM_API_KEY"].reveal() == HELD_BY_HOSTS
    assert serve.gate is not None
    assert [*serve.gate.keys] == ["bob", "eve", "alice"]


def test_other_secrets_and_what_is_not_complete_are_refused_but_for_the_way_back(hosts: Request) -> None:
    without: Any = {**KEPT, "secrets": {}}
    with pytest.raises(CheckError, match="its secrets are others than those of today: HF_TOKEN"):
        recall(KEPT, without, hosts)
    incomplete: Any = {**KEPT, "complete": False}
    with pytest.raises(CheckError, match="a part of its configuration is secret"):
        recall(incomplete, KEPT, hosts)
    assert recall(incomplete, without, hosts, exact=False).serve.name == "two"
