from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import LISTED, SEED, faults, load


def test_both_forms_mean_the_same(tmp_path: Path) -> None:
    (listed,) = load(LISTED, folder=tmp_path).models
    (seed,) = load(SEED, folder=tmp_path).models
    assert (listed.name, listed.model, listed.port) == (seed.name, seed.model, seed.port)
    assert dict(listed.engine_args) == {**seed.engine_args, "trust-remote-code": True}
    assert listed.where == f"{tmp_path}/qwen.yaml:1:3: 0"


def test_engine_args_win_over_specific_ones_however_they_are_spelled(tmp_path: Path) -> None:
    text = """
    - serve_id: m
      engine: vllm
      engine_args: {model: /m, max_num_seqs: 1, tp: 2}
      engine_args_specific: {vllm: {max-num-seqs: 2, tensor_parallel_size: 4, enforce_eager: true}, sglang: {x: 1}}
      profile: {prefix_len: 0}
    """
    (model,) = load(text, folder=tmp_path).models
    assert dict(model.engine_args) == {"max-num-seqs": 1, "tensor-parallel-size": 2, "enforce-eager": True}


def test_resources_are_read_and_deploy_models_win_over_them(tmp_path: Path) -> None:
    text = "serve: [{serve_id: m, engine_args: {model: /m}, resources: {num_replicas: 2, num_gpus: 4, num_cpus: 8}}]\n"
    (model,) = load(text, folder=tmp_path).models
    assert (model.replicas, model.num_gpus, model.num_cpus) == (2, 4, 8)
    (model,) = load(f"{text}deploy: {{models: {{m: {{num_gpus: 0}}}}}}", folder=tmp_path).models
    assert (model.replicas, model.num_gpus) == (2, 0)


@pytest.mark.parametrize(
    "place", ["experiment: {deploy: {port: 6701}}", "experiment: {runner: {deploy: {port: 6701}}}"]
)
def test_deploy_settings_may_stand_in_the_experiment(tmp_path: Path, place: str) -> None:
    text = f"serve: [{{serve_id: m, engine: vllm, engine_args: {{model: /m, port: 1}}}}]\n{place}"
    assert load(text, folder=tmp_path).models[0].port == 6701


FAULTS = {
    "another engine": (
        LISTED.replace("engine: vllm", "engine: sglang"),
        "qwen.yaml: 0.engine: 'sglang' is not run here",
    ),
    "unknown key": (
        f"{LISTED}  engine_arg: {{}}",
        "qwen.yaml: 0.engine_arg: unknown key\n    → did you mean engine_args?",
    ),
    "no id": (LISTED.replace("serve_id: vllm_model\n  ", ""), "qwen.yaml: 0: has no serve_id"),
    "no model": (LISTED.replace("model:", "modl:"), "qwen.yaml: 0.engine_args: has no model"),
    "one id twice": (f"{LISTED}{LISTED}", "qwen.yaml: 1: the serve_id vllm_model is already used by an earlier entry"),
    "no entries": ("[]", "qwen.yaml: has no models"),
    "no mapping": ("- x", "qwen.yaml: 0: is not a mapping"),
    "arguments that are a list": (
        "- {serve_id: m, engine_args: [a], engine_args_specific: {vllm: {model: /m}}}",
        "qwen.yaml: 0.engine_args: is not a mapping",
    ),
    "replicas": (
        f"{LISTED}  resources: {{num_replicas: 0}}",
        "qwen.yaml: 0.resources.num_replicas: 0: expected a whole number from 1, or auto",
    ),
    "unknown resource": (
        f"{LISTED}  resources: {{num_gpu: 0}}",
        "qwen.yaml: 0.resources.num_gpu: unknown key\n    → did you mean num_gpus?",
    ),
    "models in two places": (
        f"serve: [{{serve_id: m, engine_args: {{model: /m}}}}]\n{SEED.partition('deploy')[0]}",
        "qwen.yaml: model_args: the models are already under serve",
    ),
    "serve is a word": ("serve: x", "qwen.yaml: serve: has no models"),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith(problem)
