"""A program of the user's own in place of `vllm serve`: `command-line-mode: false` with an `entrypoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.spec import ServeSpec
from tests.unit.config.files import SEED, faults, load

PROGRAM = """\
experiment:
  exp_name: app
  task: {type: serve, entrypoint: examples/app.py}
  envs: {A: 1}
serve:
  model_args:
    llm: {model-tag: /models/mine, whatever: {it: needs}, port: 8123}
  deploy:
    command-line-mode: false
    models:
      llm: {num_gpus: 0.5, resources: {A100: 1}, max-retries: 2, num_replicas: 1}
      other: {num_cpus: 2}
"""


def program(spec: ServeSpec) -> tuple[bool, Any]:
    return spec.runs_program, spec.entrypoint


def test_a_program_is_carried_with_its_options_and_the_whole_configuration(tmp_path: Path) -> None:
    spec = load(PROGRAM.replace("0.5", "2"), "deploy.models.other.num_cpus=3", folder=tmp_path)
    assert program(spec) == (True, "examples/app.py")
    assert spec.remote_options == {
        "llm": {"num_gpus": 2, "resources": {"A100": 1}, "max_retries": 2},
        "other": {"num_cpus": 3},
    }
    document: Any = spec.document
    assert document["experiment"]["task"]["entrypoint"] == "examples/app.py"
    assert document["serve"]["model_args"]["llm"]["whatever"] == {"it": "needs"}


def test_it_needs_no_models_and_makes_of_them_what_it_likes(tmp_path: Path) -> None:
    bare = "experiment: {task: {entrypoint: a.py}}"
    assert load(bare, folder=tmp_path).models == ()
    assert load(f"{bare}\nmodel_args: {{m: [1, 2]}}", folder=tmp_path).models == ()


def test_a_part_of_a_gpu_is_for_tasks(tmp_path: Path) -> None:
    assert load(PROGRAM, folder=tmp_path).remote_options["llm"]["num_gpus"] == 0.5


def test_a_flat_file_is_handed_on_in_the_shape_of_an_experiment(tmp_path: Path) -> None:
    text = "experiment: {task: {entrypoint: a.py}}\nmodel_args: {m: {model: /m}}\ndeploy: {models: {m: {num_cpus: 1}}}"
    assert load(text, folder=tmp_path).document == {
        "experiment": {"task": {"entrypoint": "a.py"}},
        "serve": {"model_args": {"m": {"model": "/m"}}, "deploy": {"models": {"m": {"num_cpus": 1}}}},
    }


def test_with_command_line_mode_the_entrypoint_is_not_run_as_in_flagscale(tmp_path: Path) -> None:
    spec = load(f"{SEED}experiment: {{task: {{entrypoint: a.py}}}}", folder=tmp_path)
    assert program(spec) == (False, "a.py")
    assert (spec.document, spec.remote_options) == ({}, {})


@pytest.mark.parametrize("mode", ["false", "null", "no"])
def test_without_an_entrypoint_vllm_serves(tmp_path: Path, mode: str) -> None:
    text = SEED.replace("command-line-mode: true", f"command-line-mode: {mode}")
    assert not load(f"{text}experiment: {{task: {{entrypoint: null}}}}", folder=tmp_path).runs_program


def test_what_is_shown_of_the_configuration_tells_versions_apart_and_no_secret(tmp_path: Path) -> None:
    text = PROGRAM.replace("port: 8123", "api-key: sk-open-sesame")
    spec, other = load(text, folder=tmp_path), load(text, "serve.model_args.llm.whatever=2", folder=tmp_path)
    assert spec.public() != other.public()
    assert "sesame" not in json.dumps(spec.public()) + repr(spec)
    assert spec.secret_env["VLLM_API_KEY"].reveal() == "sk-open-sesame"


def test_an_option_that_ray_does_not_have_is_named(tmp_path: Path) -> None:
    (fault,) = faults(PROGRAM.replace("max-retries", "max-retry"), folder=tmp_path)
    assert fault.startswith(
        "qwen.yaml: serve.deploy.models.llm.max-retry: unknown key\n    → did you mean max_retries?"
    )


@pytest.mark.parametrize(
    ("deploy", "port"),
    [
        ("port: 8123", 8123),
        ("service: {port: 8123}", 8123),
        ("port: 1\n    service: {port: 2}", 1),
        ("models: {}", None),
    ],
)
def test_where_a_program_answers_is_said_by_deploy(tmp_path: Path, deploy: str, port: int | None) -> None:
    text = f"experiment: {{task: {{entrypoint: a.py}}}}\nserve:\n  deploy:\n    {deploy}\n"
    assert load(text, folder=tmp_path).program_port == port


def test_nobody_can_choose_a_programs_port_for_it(tmp_path: Path) -> None:
    text = "experiment: {task: {entrypoint: a.py}}\ndeploy: {port: auto}\n"
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith("qwen.yaml: deploy.port: auto: a program of your own chooses its port itself")


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("+deploy.models.llm.hosts=gpu01", "override deploy.models.llm.hosts: has no effect on a program of your own"),
        ("+deploy.router.policy=random", "override deploy.router.policy: has no effect on a program of your own"),
        (
            "+experiment.node_args.gpu01.engine_args.seed=1",
            "override experiment.node_args.gpu01.engine_args.seed: has no effect on a program of your own",
        ),
    ],
)
def test_what_is_said_of_engines_is_refused_beside_a_program(tmp_path: Path, word: str, problem: str) -> None:
    (fault,) = faults(PROGRAM, word, folder=tmp_path)
    assert fault.startswith(problem)
    assert load(PROGRAM, "+deploy.router=none", folder=tmp_path).router.enabled is False
