from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.plan.vllm import serve_argv
from tests.unit.config.files import faults, load, write

LLM = """\
command-line-mode: true
llm:
  model-tag: /models/mine
  tensor-parallel-size: 2
  port: 4568
  action-args:
    - trust-remote-code
deploy:
  instance:
    - name: mine-7b
      num-replicas: 3
"""


def test_the_model_under_llm_is_served_as_any_other(tmp_path: Path) -> None:
    spec = load(LLM, folder=tmp_path)
    (model,) = spec.models
    assert " ".join(serve_argv(model, port=model.port, extra={})) == (
        "vllm serve /models/mine --tensor-parallel-size=2 --port=4568 --trust-remote-code"
    )
    assert (model.name, model.replicas, model.where) == ("mine-7b", 3, f"{tmp_path}/qwen.yaml:2:1: llm")
    assert spec.command_line_mode is True


def test_it_may_be_a_group_and_be_overridden(tmp_path: Path) -> None:
    write(tmp_path / "serve", {"mine.yaml": LLM})
    (model,) = load("defaults: [_self_, {serve: mine}]", "llm.port=9", "serve.llm.seed=1", folder=tmp_path).models
    assert (model.port, model.engine_args["seed"]) == (9, 1)


@pytest.mark.parametrize("root", ["llm", "vllm"])
def test_without_an_instance_it_has_the_name_of_its_root(tmp_path: Path, root: str) -> None:
    (model,) = load(f"{root}: {{model-tag: /m}}", folder=tmp_path).models
    assert (model.name, model.replicas) == (root, 1)


def test_several_instances_are_so_many_copies(tmp_path: Path) -> None:
    text = LLM + "    - {name: other, num_replicas: 2, num_gpus: 2}\n    - {name: third}\n"
    (model,) = load(text, folder=tmp_path).models
    assert (model.name, model.replicas) == ("llm", 6)


@pytest.mark.parametrize("switch", ["use_native_serve: true", "command_line_mode: true", "command-line-mode: true"])
def test_switches_of_that_time_are_known_wherever_they_stand(tmp_path: Path, switch: str) -> None:
    model = "model_args: {m: {model: /m}}\n"
    assert load(f"{model}{switch}", folder=tmp_path).models
    assert load(f"{model}deploy: {{{switch}}}", folder=tmp_path).models


FAULTS = {
    "two roots": (
        "llm: {model-tag: /m}\nmodel_args: {m: {model: /m}}",
        "qwen.yaml: llm: the models are already under model_args",
    ),
    "no mapping": ("llm: /models/mine", "qwen.yaml: llm: is not a mapping"),
    "no model": ("llm: {port: 1}", "qwen.yaml: llm: has no model-tag"),
    "an unknown key of an instance": (
        LLM.replace("num-replicas", "num-replica"),
        "qwen.yaml: deploy.instance.0.num-replica: unknown key\n    → did you mean num_replicas?",
    ),
    "instances that are a word": (
        "llm: {model-tag: /m}\ndeploy: {instance: 2}",
        "qwen.yaml: deploy.instance: is not a list",
    ),
    "instances elsewhere": (
        "model_args: {m: {model: /m}}\ndeploy: {instance: [{name: m}]}",
        "qwen.yaml: deploy.instance: belongs to the form with llm:",
    ),
    "options of another model": (
        "llm: {model-tag: /m}\ndeploy: {models: {other: {num_gpus: 1}}}",
        "qwen.yaml: deploy.models.other: unknown model\n    → llm has: llm",
    ),
    "under serve and not": (
        "serve: {model_args: {m: {model: /m}}}\nllm: {model-tag: /m}",
        "qwen.yaml: llm: the models are already under serve",
    ),
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith(problem)
