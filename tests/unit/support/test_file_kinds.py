"""Files of other kinds, given as an inventory or as a serve YAML, are told by what they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.support.file_kinds import FileKind, kind_of_text
from tests.unit.sources import ROOT

SERVE = {
    "model_args.yaml": "model_args: {vllm_model: {model-tag: /m}}\ndeploy: {models: {vllm_model: {num_gpus: 1}}}\n",
    "list.yaml": "- serve_id: vllm_model\n  engine: vllm\n",
    "llm.yaml": "llm: {model-tag: /m}\n",
    "hydra.yaml": "defaults: [_self_, {serve: qwen}]\nexperiment: {exp_name: x}\n",
    "composed.yaml": "defaults:\n- _self_\n- serve: qwen\n",
}
INVENTORIES = {
    "hosts.yaml": "all: {children: {gpu: {hosts: {gpu01: }}}}\n",
    "short.yaml": "hosts: [gpu01]\ndefaults: {gpus: 8}\n",
    "groups.yaml": "serve: {hosts: {gpu01: }}\nvllm: {children: {serve: }}\n",
    "hosts.ini": "[gpu]\ngpu01\n[gpu:vars]\nansible_user = 'me'\n",
    "line.ini": "gpu01 ansible_host=10.0.0.1\n",
    "hostfile": "10.0.0.1 slots=8 type=gpu\n10.0.0.2 slots = 8\n",
}
OTHERS = {
    FileKind.COMPOSE: ("compose.yaml", "services:\n  vllm: {image: vllm/vllm-openai, command: --model /m}\n"),
    FileKind.VLLM: ("vllm.yaml", "model: /m\nhost: 0.0.0.0\nport: 8000\ntensor-parallel-size: 8\n"),
    FileKind.TOML: ("x", '[serve]\nmodel = "/m"\nport = 8000\n'),
    FileKind.PLAYBOOK: ("site.yml", "- hosts: gpu\n  tasks: [{ping: }]\n"),
    FileKind.KUBERNETES: ("pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n"),
    FileKind.RAY: ("cluster.yaml", "cluster_name: x\nprovider: {type: local}\nauth: {ssh_user: me}\n"),
}


def error(read: object, path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        (load_spec if read is load_spec else load_inventory)(path)
    return str(caught.value)


@pytest.mark.parametrize("name", SERVE)
def test_a_serve_yaml_is_no_inventory(name: str, tmp_path: Path) -> None:
    assert error(load_inventory, tmp_path / name, SERVE[name]).splitlines() == [
        f"{tmp_path / name}: is a serve YAML, not an inventory",
        "    → -i and -c are swapped: give this file with -c, and the hosts with -i",
    ]


@pytest.mark.parametrize("name", INVENTORIES)
def test_an_inventory_is_no_serve_yaml(name: str, tmp_path: Path) -> None:
    assert error(load_spec, tmp_path / name, INVENTORIES[name]).splitlines() == [
        f"{tmp_path / name}: is an inventory, not a serve YAML",
        "    → -i and -c are swapped: give this file with -i, and a serve YAML with -c",
    ]
    assert load_inventory(tmp_path / name).names


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("read", [load_spec, load_inventory])
def test_a_file_of_another_tool_is_named_with_what_to_write_instead(
    read: object, kind: FileKind, tmp_path: Path
) -> None:
    name, text = OTHERS[kind]
    problem, remedy = error(read, tmp_path / name, text).splitlines()
    assert f"{name}: is {kind.value[0]}, not a" in problem
    assert remedy.removeprefix("    → ") == kind.value[2 if read is load_spec else 1] != ""


def test_every_kind_is_tried() -> None:
    assert {*OTHERS, FileKind.SERVE, FileKind.INVENTORY} == set(FileKind)


def test_lines_for_vllm_mean_the_same_below_our_keys(tmp_path: Path) -> None:
    lines = "".join(f"    {line}\n" for line in OTHERS[FileKind.VLLM][1].splitlines())
    (tmp_path / "serve.yaml").write_text(f"model_args:\n  vllm_model:\n{lines}", encoding="utf-8")
    (model,) = load_spec(tmp_path / "serve.yaml", environ={}).models
    assert (model.model, model.port, model.engine_args) == ("/m", 8000, {"host": "0.0.0.0", "tensor-parallel-size": 8})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_no_example_is_taken_for_something_else(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_inventory(path)
    assert "is a serve YAML, not an inventory" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["\n" * 100_000, "a" + " " * 100_000 + "=", "a " + "slots " * 50_000, "[a]\n" * 50_000]
)
def test_no_text_takes_long_to_be_recognised(text: str) -> None:
    began = time.process_time()
    kind_of_text(text, "x")
    assert time.process_time() - began < 10
