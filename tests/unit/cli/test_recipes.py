"""Recipes on the command line; no host is contacted."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagscale_deploy.api.recipes import settle
from flagscale_deploy.api.request import Options, load_request
from flagscale_deploy.cli import cli
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import InputError
from tests.unit.sources import ROOT

LIBRARY = ROOT / "tests/unit/recipes/library"
DENSE = ("-c", "recipe:example/Dense-8B")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a directory with an inventory of two hosts with GPUs whose name is declared."""
    (tmp_path / "hosts.yaml").write_text("hosts: ['gpu[01:02]']\ndefaults: {gpus: 8, type: h200}\n")
    (tmp_path / "unnamed.yaml").write_text("hosts: ['gpu[01:02]']\ndefaults: {gpus: 8}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAGSCALE_DEPLOY_RECIPES", str(LIBRARY))
    return tmp_path


def go(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def plan(*words: str, inventory: str = "hosts.yaml") -> Result:
    return go("plan", "--offline", "-i", inventory, *words)


def test_plan_says_why_hardware_and_strategy_were_chosen() -> None:
    result = plan(*DENSE)
    assert result.exit_code == 0, result.stderr
    assert "hardware h200: the hosts have h200" in result.stderr
    assert "strategy single_node_tp: gpu01 has the 2 GPUs that are needed" in result.stderr
    assert "vllm serve example/Dense-8B --max-model-len=auto --tensor-parallel-size=2" in result.stdout
    assert result.stdout.startswith("deployment Dense-8B ")


def test_what_is_named_needs_no_reason() -> None:
    result = plan(*DENSE, "hardware=h100", "strategy=single_node_tp", inventory="unnamed.yaml")
    assert "--gpu-memory-utilization=0.90" in result.stdout
    assert "strategy" not in result.stderr


def test_gpus_without_a_name_are_told() -> None:
    result = plan(*DENSE, inventory="unnamed.yaml")
    assert result.exit_code == 2
    assert "hardware: the hosts have gpu, expected one of the recipes'" in result.stderr
    assert "hardware=h100; there are: h100, h200" in result.stderr


def test_overrides_change_a_recipe_as_any_serve_yaml() -> None:
    words = ("deploy.port=9000", "model_args.vllm_model.max-model-len=4096", "~model_args.vllm_model.block-size")
    result = plan(*DENSE, *words, "deploy.name=mine")
    assert "deployment mine " in result.stdout
    assert "--max-model-len=4096 --tensor-parallel-size=2 --tokenizer-mode=mistral --port=9000" in result.stdout
    wrong = plan(*DENSE, "model_args.other.seed=1")
    assert "override model_args.other.seed: unknown model other" in wrong.stderr


def test_a_deployment_is_kept_as_a_serve_yaml_that_is_planned_alike(place: Path) -> None:
    made = plan(*DENSE, "deploy.port=9000", "-o", "kept.yaml")
    assert made.exit_code == 0, made.stderr
    assert "serve YAML written to kept.yaml" in made.stderr
    kept = plan("-c", "kept.yaml")
    digests = [result.stdout.split()[3] for result in (made, kept)]
    assert digests[0] == digests[1]
    again = plan(*DENSE, "-o", "kept.yaml")
    assert again.exit_code == 2
    assert "kept.yaml: exists already" in again.stderr


def test_any_configuration_is_kept_in_one_file_with_its_name_and_its_references(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "conf/serve").mkdir(parents=True)
    flags = "seed: 1e-5, served_model_name: 'yes', dtype: null, api-key: '${oc.env:KEY}'"
    (place / "conf/serve/it.yaml").write_text(f"- serve_id: m\n  engine_args: {{model: /m/yes, {flags}}}\n")
    (place / "conf/one.yaml").write_text("defaults: [_self_, {serve: it}]\nexperiment: {envs: {A: '010', B: 1.10}}\n")
    monkeypatch.setenv("KEY", "s3cret-value")
    made = plan("-c", "conf/one.yaml", "+serve.m.engine_args.max_num_seqs=8", "-o", "kept.yaml")
    assert made.exit_code == 0, made.stderr
    text = (place / "kept.yaml").read_text()
    assert "s3cret-value" not in text
    assert (place / "kept.yaml").stat().st_mode & 0o777 == 0o600
    first = load_spec("conf/one.yaml", ["+serve.m.engine_args.max_num_seqs=8"])
    again = load_spec("kept.yaml")
    assert (again.name, dict(again.env), again.exp_dir) == (first.name, dict(first.env), first.exp_dir)
    assert [(*model.engine_args.items(), model.model) for model in again.models] == [
        (*model.engine_args.items(), model.model) for model in first.models
    ]
    assert str(again.models[0].engine_args["seed"]) == "1e-5"


def test_a_command_that_does_not_plan_reads_no_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSCALE_DEPLOY_RECIPES", "/nowhere")
    overrides = ("deploy.name=mine", "hardware=x", "model_args.vllm_model.seed=1", "experiment.runner.ssh_port=2222")
    options = Options(inventory="hosts.yaml", config="recipe:example/Dense-8B", overrides=overrides)
    request = load_request(options, {})
    assert request.deployment == "mine"
    assert {host.port for host in request.inventory.hosts} == {2222}
    with pytest.raises(InputError, match="the recipe was not read"):
        _ = request.serve
    with pytest.raises(InputError, match="there is no folder /nowhere"):
        settle(request, offline=True)
    assert load_request(Options(inventory="hosts.yaml", config="recipe:example/Dense-8B"), {}).deployment == "Dense-8B"


def test_strategies_that_are_not_deployed_are_refused_by_name() -> None:
    result = plan(*DENSE, "strategy=kv_store_mooncake")
    assert result.exit_code == 2
    assert "kv_store_mooncake needs a store for the KV cache" in result.stderr


def test_a_recipe_may_be_the_default_of_a_project(place: Path) -> None:
    (place / "flagscale-deploy.yaml").write_text("inventory: hosts.yaml\nconfig: recipe:example/Dense-8B\n")
    result = go("plan", "--offline")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("deployment Dense-8B ")
