"""A configuration as it was resolved is read back as the same one, and holds no secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.resolved import resolved_yaml, without_secret
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.secrets import HIDDEN, Redactor
from tests.unit.config.files import EXPERIMENT, LISTED, SEED, load, write
from tests.unit.config.test_any_input import FULL, OLDEST, PROGRAM

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRETS = {"HF_TOKEN": "hf_canary/1 $'\"x", "VLLM_API_KEY": "sk-canary+two==", "MY": "mine-canary"}
REFERENCES = """
experiment:
  exp_name: refers
  envs: {A: "${experiment.exp_name}-1", HOME_OF: "$HOME/x", MORE: "${LD_LIBRARY_PATH}:/x", HF_TOKEN: "${oc.env:MY}"}
  cmds: {before_start: 'echo \\${X} \\\\\\${Y} "a\\b" $(date)'}
serve:
- serve_id: m
  engine_args: {model: /m, api_key: sk-canary+two==, version: 1.10, rate: 1e-5, word: "yes", odd: "0x1f"}
  hf_overrides: 1
""".replace("  hf_overrides: 1\n", "")


def again(spec: ServeSpec, redact: Any = str, **environ: str) -> ServeSpec:
    """Return the specification that is read from the resolved text."""
    document = parse_document(resolved_yaml(spec, redact), spec.source)
    return load_spec(document, environ={**SECRETS, **environ})


def content(spec: ServeSpec) -> dict[str, Any]:
    """Return what a specification says, apart from where its parts stand."""
    public = spec.public()
    models = [{key: value for key, value in model.items() if key not in ("where", "places")} for model in
              public["models"]]  # fmt: skip
    for model in models:
        for pool in ("prefill", "decode"):
            model[pool] = model[pool] and {**model[pool], "where": "", "places": {}}
    return {**public, "models": models, "document": ""}


@pytest.mark.parametrize("text", [SEED, LISTED, FULL, OLDEST, PROGRAM, REFERENCES])
def test_every_form_is_read_back_as_it_was(tmp_path: Path, text: str) -> None:
    spec = load(text, folder=tmp_path, **SECRETS)
    back = again(spec)
    assert content(back) == content(spec)
    assert back.secret_env.keys() == spec.secret_env.keys()


def test_overrides_and_groups_are_in_it(tmp_path: Path) -> None:
    write(tmp_path, {"exp.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": SEED})
    words = ("model_args.vllm_model.max_model_len=4096", "deploy.port=9000", "experiment.envs.X='${oc.env:MY}'")
    spec = load_spec(tmp_path / "exp.yaml", words, "other", SECRETS)
    back = again(spec)
    assert (back.name, back.models[0].port, back.models[0].engine_args["max-model-len"]) == ("other", 9000, 4096)
    assert content(back) == content(spec)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_read_back(path: Path) -> None:
    spec = load_spec(path, environ=SECRETS)
    assert content(again(spec)) == content(spec)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.sampled_from("ab${}\\:'\" \n~#-é"), max_size=12))
def test_any_text_is_read_back(text: str) -> None:
    tree: Any = {"model_args": {"m": {"model": "/m"}}, "experiment": {"cmds": {"before_start": f"x{text}"}}}
    spec = replace(load_spec(parse_document("model_args: {m: {model: /m}}\n", "q.yaml")), resolved=tree)
    assert again(spec).before_start == f"x{text}"


def test_no_secret_is_in_it(tmp_path: Path) -> None:
    text = f"""
experiment:
  exp_name: leaky
  envs: {{HF_TOKEN: "{SECRETS["MY"]}", DB_PASSWORD: "{SECRETS["MY"]}"}}
  cmds: {{before_start: "export X={SECRETS["MY"]}"}}
  runner: {{cli_args: {{engine_args: '{{"api_key": "sk-canary+two=="}}'}}}}
serve:
- serve_id: m
  engine_args: {{model: /m, hf_token: {SECRETS["MY"]}}}
  deploy: {{}}
deploy: {{secrets: [VLLM_API_KEY], secret_files: {{F_TOKEN: {tmp_path}/token}}}}
""".replace("  deploy: {}\n", "")
    (tmp_path / "token").write_text("in-a-file")
    spec = load(text, folder=tmp_path, **SECRETS)
    redactor = Redactor([*spec.secret_env.values(), SECRETS["MY"]])
    shown = resolved_yaml(spec, redactor.redact)
    assert [secret for secret in (*SECRETS.values(), "in-a-file") if secret in shown] == []
    assert "HF_TOKEN: ${oc.env:HF_TOKEN}" in shown
    assert "DB_PASSWORD: ${oc.env:DB_PASSWORD}" in shown
    assert "hf_token: ${oc.env:HF_TOKEN}" in shown
    assert shown.count(HIDDEN) == 2, "in a text, a secret is hidden: what is read back is not the same"
    assert "VLLM_API_KEY" in shown


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("deploy.port=9000", "deploy.port=9000"),
        ("experiment.envs.HF_TOKEN=abc", f"experiment.envs.HF_TOKEN={HIDDEN}"),
        ("+model_args.m.api-key=abc=", f"+model_args.m.api-key={HIDDEN}"),
        ("~deploy.router", "~deploy.router"),
    ],
)
def test_words_of_the_command_line_keep_no_secret(word: str, kept: str) -> None:
    assert without_secret(word) == kept
