"""Where faults of a serve YAML are: file, line and column of the key, or the override that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import FaultsError, InputError
from flagscale_deploy.plan.validate import refuse_wrong
from tests.unit.config.files import write
from tests.unit.plan.given import inventory, planned, seen

MODEL = "model_args:\n  m:\n    model: /m\n"


def places(files: dict[str, str], *overrides: str, folder: Path) -> list[str]:
    write(folder, files)
    with pytest.raises(InputError) as raised:
        refuse_wrong(load_spec(folder / "q.yaml", overrides, environ={}))
    return [fault.where.replace(f"{folder}/", "") for fault in raised.value.faults]


CASES: dict[str, tuple[str, str]] = {
    "a value": (f"# first\n{MODEL}deploy: {{port: x}}", "q.yaml:5:10: deploy.port"),
    "an unknown key": (f"{MODEL}deploy:\n  models:\n    m:\n      num_gpu: 1", "q.yaml:7:7: deploy.models.m.num_gpu"),
    "another spelling": (f"{MODEL}deploy:\n  command_line-mode: 3", "q.yaml:5:3: deploy.command_line-mode"),
    "what is not there": ("model_args:\n  m: {}", "q.yaml:2:3: model_args.m"),
    "no models": ("action: run", "q.yaml:1:1: model_args"),
    "an empty file": ("# nothing", "q.yaml:1:1"),
    "one value": ("\n  7", "q.yaml:2:1"),
    "an item of a list": ("- serve_id: a\n  engine_args: {model: /m}\n- 7", "q.yaml:3:3: 1"),
    "below an item": ("- serve_id: a\n  engine_args:\n    model: /m\n    tp: x", "q.yaml:4:5: 0.engine_args.tp"),
    "a merged key": (f"x: &a {{port: y}}\n{MODEL}deploy:\n  <<: *a", "q.yaml:1:8: deploy.port"),
    "an interpolation": (f"{MODEL}experiment:\n  exp_dir: ${{a.b}}", "q.yaml:5:3: experiment.exp_dir"),
    "a flag of a plan": (f"{MODEL}    headless: true", "q.yaml:4:5: model_args.m.headless"),
    "a short name": (f"{MODEL}    n: 2", "q.yaml:4:5: model_args.m.nnodes"),
    "a name": (f"{MODEL}experiment: {{exp_name: ../x}}", "q.yaml:4:14: experiment.exp_name"),
    "a host's flag": (
        f"{MODEL}experiment:\n  node_args:\n    g: {{engine_args: {{headless: true}}}}",
        "q.yaml:6:23: experiment.node_args.g.engine_args.headless",
    ),
    "a missing group": (f"defaults:\n  - serve: x\n{MODEL}", "q.yaml:1:1: defaults.serve"),
    "some other file": ("a: 1\nb: 2\nc: 3\nd: 4", "q.yaml:1:1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_has_line_and_column(tmp_path: Path, case: str) -> None:
    text, place = CASES[case]
    assert place in places({"q.yaml": text}, folder=tmp_path)


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("deploy.port=x", "override deploy.port"), ("model_args.m.tp=x", "override model_args.m.tp"),
        ("model_args.m.tensor_parallel_size=x", "override model_args.m.tensor_parallel_size"),
        ("model_args.m.head-less=1", ""), ("+model_args.n={}", "override model_args.n"),
        ("model_args.m.nnodes=2", "override model_args.m.nnodes"), ("a b", "override a b"),
        ("deploy={port: x}", "override deploy"), ("nope.a=1", "override nope.a"),
        ("deploy.name=../x", "override deploy.name"), ("experiment.exp_dir=${a.b}", "override experiment.exp_dir"),
        ("model_args.m.x=[", "override model_args.m.x:1:2"), ("serve=none", "override serve"),
        ("experiment.runner.hostfile=???", "override experiment.runner.hostfile"),
    ],
)  # fmt: skip
def test_a_fault_of_an_override_names_it(tmp_path: Path, word: str, place: str) -> None:
    files = {"q.yaml": f"{MODEL}    tp: 1\ndeploy: {{port: 1}}", "serve/a.yaml": MODEL}
    if not place:
        write(tmp_path, files)
        refuse_wrong(load_spec(tmp_path / "q.yaml", [word], environ={}))
        return
    assert place in places(files, word, folder=tmp_path)


def test_what_two_files_set_is_placed_in_the_one_that_has_it(tmp_path: Path) -> None:
    files = {
        "q.yaml": "defaults: [base, {serve: a}, _self_]\nserve:\n  deploy: {port: x}\nexperiment: {exp_dir: [1]}",
        "base.yaml": "# base\nexperiment:\n  cmds: 7",
        "serve/a.yaml": f"defaults: [b]\n{MODEL}deploy:\n  ray: maybe\n  port: 1",
        "serve/b.yaml": "\n\ndeploy: {warm: 9}",
    }
    assert sorted(places(files, folder=tmp_path)) == [
        "base.yaml:3:3: experiment.cmds",
        "q.yaml:3:12: serve.deploy.port",
        "q.yaml:4:14: experiment.exp_dir",
        "serve/a.yaml:6:3: deploy.ray",
        "serve/b.yaml:3:10: deploy.warm",
    ]


@pytest.mark.parametrize("place", ["deploy", "experiment: {runner: {deploy", "serve: {deploy"])
def test_what_a_plan_refuses_is_placed_wherever_deploy_stands(tmp_path: Path, place: str) -> None:
    text = f"{MODEL}{place}: {{ray: {{port: 8000}}, port: 8000}}" + "}" * place.count("{")
    if place.startswith("serve"):
        text = "serve:\n  model_args: {m: {model: /m}}\n\n  deploy: {ray: {port: 8000}, port: 8000}"
    write(tmp_path, {"q.yaml": text})
    with pytest.raises(FaultsError) as raised:
        planned(inventory("gpu01"), load_spec(tmp_path / "q.yaml", environ={}), seen("gpu01"))
    assert all(fault.where.startswith(f"{tmp_path}/q.yaml:") for fault in raised.value.faults)
    assert any(fault.where.endswith("deploy.ray.port") and ":4:" in fault.where for fault in raised.value.faults)
