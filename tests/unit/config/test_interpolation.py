from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import SEED, faults, load


def experiment(line: str) -> str:
    return f"{SEED}experiment:\n  exp_name: q\n  {line}\n"


def test_values_of_the_file_and_of_the_environment_are_put_in(tmp_path: Path) -> None:
    text = """
    experiment:
      exp_name: ${oc.env:USER_NAME}-qwen
      envs:
        A: ${oc.env:NONE,/models/x-1.5}
        B: ${oc.env:NONE, b c}
        C: ${experiment.exp_name}
        D: ${oc.env:NONE,null}
    model_args:
      m:
        model: ${experiment.envs.A}/7B
        x: ${model_args.m.y}
        y: 1.10
        z: ${.y}
        w: ${model_args.m.map}
        map: {a: 1.50}
    """
    spec = load(text, folder=tmp_path, USER_NAME="li")
    assert spec.env == {"A": "/models/x-1.5", "B": "b c", "C": "li-qwen"}
    (model,) = spec.models
    assert model.model == "/models/x-1.5/7B"
    assert {key: str(value) for key, value in model.engine_args.items()} == {
        "x": "1.10", "y": "1.10", "z": "1.10", "w": "{'a': 1.5}", "map": "{'a': 1.5}",
    }  # fmt: skip


def test_a_backslash_keeps_a_variable_for_the_hosts_shell(tmp_path: Path) -> None:
    spec = load(experiment(r"cmds: {before_start: 'export PATH=\${HOME}/bin:$PATH'}"), folder=tmp_path)
    assert spec.before_start == "export PATH=${HOME}/bin:$PATH"


def test_only_the_given_environment_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN", "process")
    text = experiment("exp_dir: ${oc.env:SEEN}")
    assert load(text, folder=tmp_path, SEEN="given").exp_dir == "given"
    assert faults(text, folder=tmp_path)


def test_hydras_own_interpolations_are_left_to_hydra(tmp_path: Path) -> None:
    assert load(f"{SEED}hydra: {{run: {{dir: '${{now:%Y}}/${{hydra:job.name}}'}}}}", folder=tmp_path).name == "qwen"


FAULTS = {
    "exp_dir: ${oc.env:NONE}": "the environment variable NONE is not set\n    → export it, or give a default",
    "exp_dir: ${experiment.nme}": "Interpolation key 'experiment.nme' not found\n    → for a shell variable write",
    "exp_dir: ${experiment.exp_dir}": "Recursive interpolation detected",
    "exp_dir: ${now:%Y}": "Unsupported interpolation type now",
    "exp_dir: '${oc.env:'": "holds a ${…} that cannot be read",
    "exp_dir: ???": "has no value (???)\n    → add experiment.exp_dir=… to the command line",
}


@pytest.mark.parametrize(("line", "problem"), FAULTS.items())
def test_what_cannot_be_put_in_is_named_with_its_place(tmp_path: Path, line: str, problem: str) -> None:
    (fault,) = faults(experiment(line), folder=tmp_path)
    assert fault.startswith(f"qwen.yaml: experiment.exp_dir: {problem}")


def test_all_that_cannot_be_put_in_is_named_together(tmp_path: Path) -> None:
    assert len(faults(experiment("envs: {A: '${a}', B: '${oc.env:B}', C: '${'}"), folder=tmp_path)) == 3


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ("1e-5", "1e-5"), (" 1e-5 ", "1e-5"), ("0.90", "0.90"), ("true", "true"), ("1_000", "1_000"), ("a b", "a b"),
        ("'x,y'", "x,y"), ("http://h:1/x", "http://h:1/x"), ("${oc.env:ALSO,1e-5}", "1e-5"), ("", ""),
        ("'${oc.env:ALSO,1e-5}'", "1e-5"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_default_of_a_variable_stays_as_written(tmp_path: Path, default: str, text: str) -> None:
    (model,) = load(f'model_args: {{m: {{model: /m, x: "${{oc.env:NOPE,{default}}}"}}}}', folder=tmp_path).models
    assert model.engine_args["x"] == text


def test_an_escaped_interpolation_gets_no_quotes(tmp_path: Path) -> None:
    text = "experiment: {cmds: {before_start: 'echo \\${oc.env:NOPE,1e-5}'}}\nmodel_args: {m: {model: /m}}"
    assert load(text, folder=tmp_path).before_start == "echo ${oc.env:NOPE,1e-5}"
