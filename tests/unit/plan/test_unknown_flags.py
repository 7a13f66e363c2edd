"""Flags that vLLM 0.32 does not know are warnings of `plan`, each with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy.cli import cli
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.schema.short_names import SHORT_NAMES
from flagscale_deploy.plan.validate import unknown_flags
from flagscale_deploy.plan.vllm_flags import KNOWN
from tests.unit.plan.given import model, spec

PARSER = Path(__file__).parents[2] / "lab/product/vllm_package/flags.txt"
"""What vLLM's own parser has."""


def test_the_known_flags_are_those_of_the_parser() -> None:
    assert sorted(KNOWN) == sorted(PARSER.read_text(encoding="utf-8").split())
    assert set(SHORT_NAMES.values()) <= KNOWN


@pytest.mark.parametrize("flag", [*sorted(KNOWN), "O", "O3", "O.mode", "limit-mm-per-prompt.image", "hf-overrides.a.b"])
def test_a_flag_of_vllm_is_known(flag: str) -> None:
    assert unknown_flags(spec(model(engine_args={flag: 1}))) == []
    assert unknown_flags(spec(model(action_args=(flag, f"{flag}=1")))) == []


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [
        ("tensor-parallel-sise", "did you mean tensor-parallel-size?"),
        ("max-model-lenn", "did you mean max-model-len?"),
        ("no-enforce-eagre", "did you mean no-enforce-eager?"),
        ("limit-mm-per-promt.image", "did you mean limit-mm-per-prompt?"),
        ("xyzzy", "check asks the vLLM on the hosts"),
        ("Of", "check asks the vLLM on the hosts"),
    ],
)
def test_an_unknown_one_has_the_nearest_name(flag: str, remedy: str) -> None:
    for serve, place in (
        (spec(model(engine_args={flag: 1})), "model_args.qwen"),
        (spec(model(action_args=(f"{flag}=1",))), "model_args.qwen"),
        (spec(model(), host_engine_args={"gpu01": {flag: 1}}), "experiment.node_args.gpu01.engine_args"),
    ):
        (warning,) = unknown_flags(serve)
        assert warning.where == f"qwen.yaml: {place}.{flag}"
        assert warning.problem == f"vLLM 0.32 has no flag --{flag.partition('.')[0]}"
        assert warning.remedy == remedy


@pytest.mark.parametrize(("quiet", "shown"), [([], True), (["-q"], False)])
def test_plan_warns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: list[str], shown: bool) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hosts.yaml").write_text("hosts: ['10.0.0.[1:2]']\ndefaults: {gpus: 8}\n")
    Path("q.yaml").write_text("model_args:\n  m:\n    model: /m\n    tensor_parallel_sise: 8\n")
    ended = CliRunner().invoke(cli, ["plan", "--offline", "-i", "hosts.yaml", "-c", "q.yaml", *quiet, "--json"])
    assert ended.exit_code == 0
    warning = (
        "! q.yaml:4:5: model_args.m.tensor-parallel-sise: vLLM 0.32 has no flag --tensor-parallel-sise\n"
        "    → did you mean tensor-parallel-size?\n"
    )
    assert (warning in ended.stderr) == shown


CASES = {
    "O-3": ("    O: 3\n", [], "-O3", 0),
    "headless": ("    headless: true\n", [], "a headless server answers no client", 2),
    "a compact mapping": (
        "    max-model-len: 131072\n",
        ["model_args.m.limit-mm-per-prompt={image:8,video:0}"],
        '\'--limit-mm-per-prompt={"image":8,"video":0}\'',
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_users_wrote_is_planned_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    flags, overrides, expected, status = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path("hosts.yaml").write_text("hosts: ['10.0.0.[1:2]']\ndefaults: {gpus: 8}\n")
    model_and_gpu = f"    model-tag: /m\n{flags}deploy: {{models: {{m: {{num_gpus: 1}}}}}}\n"
    Path("q.yaml").write_text(f"experiment: {{exp_name: t}}\nmodel_args:\n  m:\n{model_and_gpu}")
    ended = CliRunner().invoke(cli, ["plan", "--offline", "-i", "hosts.yaml", "-c", "q.yaml", *overrides])
    assert ended.exit_code == status
    assert expected in ended.stdout + ended.stderr
    assert "! " not in ended.stderr


def test_the_examples_have_no_unknown_flag() -> None:
    examples = Path(__file__).parents[3] / "examples"
    for path in sorted(examples.glob("*.yaml")):
        assert unknown_flags(load_spec(path, environ={})) == [], path
