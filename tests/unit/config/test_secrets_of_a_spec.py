from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flagscale_deploy.plan.vllm import serve_argv
from flagscale_deploy.secrets import LONGEST, Secret
from tests.unit.config.files import LISTED, SEED, faults, load

KEY = "sk-open-sesame"


def test_variables_with_secret_names_are_apart(tmp_path: Path) -> None:
    envs = f"MY_TOKEN: {KEY}, DB_PASSWORD: 123456, A: b, HF_HUB_DISABLE_IMPLICIT_TOKEN: true"
    text = f"{SEED}experiment: {{envs: {{{envs}}}}}"
    spec = load(text, folder=tmp_path)
    assert spec.env == {"A": "b", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "true"}
    assert spec.secret_env == {"MY_TOKEN": Secret(KEY), "DB_PASSWORD": Secret("123456")}


@pytest.mark.parametrize(
    "text",
    [
        SEED.replace("port: 4567", f"api-key: {KEY}"),
        SEED.replace("port: 4567", f"api_key: [{KEY}]"),
        LISTED.replace("port: 4567", f"api_key: {KEY}"),
        SEED.replace("port: 4567", "api-key: ${oc.env:KEY}"),
    ],
)
def test_an_api_key_travels_as_a_variable_and_not_in_argv(tmp_path: Path, text: str) -> None:
    spec = load(text, folder=tmp_path, KEY=KEY)
    assert spec.secret_env == {"VLLM_API_KEY": Secret(KEY)}
    assert not [word for word in serve_argv(spec.models[0], port=1, extra={}) if "key" in word or KEY in word]


def test_a_token_of_the_hub_travels_as_a_variable(tmp_path: Path) -> None:
    spec = load(SEED.replace("port: 4567", f"hf-token: {KEY}"), folder=tmp_path)
    assert (spec.secret_env, "hf-token" in spec.models[0].engine_args) == ({"HF_TOKEN": Secret(KEY)}, False)
    assert load(SEED.replace("port: 4567", "hf-token: true"), folder=tmp_path).models[0].engine_args["hf-token"] is True


def test_deploy_secrets_come_from_the_operators_environment(tmp_path: Path) -> None:
    spec = load(f"{SEED}  secrets: [HF_TOKEN, MINE]", folder=tmp_path, HF_TOKEN=KEY, MINE="m", OTHER="o")
    assert spec.secrets == ("HF_TOKEN", "MINE")
    assert spec.secret_env == {"HF_TOKEN": Secret(KEY), "MINE": Secret("m")}


def test_a_secret_that_the_environment_does_not_hold_is_a_fault(tmp_path: Path) -> None:
    messages = faults(f"{SEED}  secrets: [HF_TOKEN, A-B]", folder=tmp_path)
    assert [fault.partition("\n")[0] for fault in messages] == [
        "qwen.yaml: deploy.secrets.1: 'A-B': expected the name of a variable"
    ]
    (fault,) = faults(f"{SEED}  secrets: [HF_TOKEN]", folder=tmp_path)
    assert fault.startswith("qwen.yaml: deploy.secrets: HF_TOKEN is not set in your environment")


def test_a_secret_set_differently_in_two_places_is_a_fault(tmp_path: Path) -> None:
    text = f"model_args: {{a: {{model: /a, api-key: {KEY}}}, b: {{model: /b, api-key: {KEY}}}}}"
    assert load(text, folder=tmp_path).secret_env == {"VLLM_API_KEY": Secret(KEY)}
    (fault,) = faults(text.replace(f"/b, api-key: {KEY}", "/b, api-key: other"), folder=tmp_path)
    assert fault.startswith("qwen.yaml: model_args.b: sets VLLM_API_KEY to another value than an earlier place")


def test_several_keys_at_once_are_a_fault_that_shows_none(tmp_path: Path) -> None:
    (fault,) = faults(SEED.replace("port: 4567", f"api-key: [{KEY}, b]"), folder=tmp_path)
    assert fault.startswith("qwen.yaml: model_args.vllm_model.api-key: holds 2 values")
    assert KEY not in fault


def test_what_a_spec_shows_holds_the_names_of_secrets_only(tmp_path: Path) -> None:
    text = (
        f"{SEED.replace('port: 4567', f'api-key: {KEY}')}  secrets: [HF_TOKEN]\nexperiment: {{envs: {{A_KEY: {KEY}1}}}}"
    )
    spec = load(text, folder=tmp_path, HF_TOKEN=f"{KEY}2")
    shown = json.dumps(spec.public(), sort_keys=True)
    assert spec.public()["secret_env"] == ["A_KEY", "HF_TOKEN", "VLLM_API_KEY"]
    assert KEY not in shown + repr(spec)
    assert re.search('"gpu-memory-utilization": 0.9', shown)


def test_a_secret_among_action_args_is_refused(tmp_path: Path) -> None:
    text = SEED.replace("- trust-remote-code", f"- api-key={KEY}")
    (fault,) = faults(text, folder=tmp_path)
    assert fault.startswith("qwen.yaml: model_args.vllm_model.action-args: holds the secret api-key")
    assert KEY not in fault


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{KEY}\n")
    spec = load(f"{SEED}  secret_files: {{HF_TOKEN: '{file}'}}", folder=tmp_path)
    assert spec.secret_env == {"HF_TOKEN": Secret(KEY)}
    assert KEY not in json.dumps(spec.public(), default=str)
    spec = load(SEED, f"deploy.secret_files.HF_TOKEN={file}", folder=tmp_path)
    assert spec.secret_env == {"HF_TOKEN": Secret(KEY)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\xff\xfe", "is text in UTF-16"),
        (b"a\0b", "holds a NUL byte"),
    ],
)
def test_a_file_that_holds_no_secret_is_a_fault(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    (fault,) = faults(f"{SEED}  secret_files: {{HF_TOKEN: '{file}'}}", folder=tmp_path)
    assert fault.startswith("qwen.yaml: deploy.secret_files.HF_TOKEN: ")
    assert problem in fault


@pytest.mark.parametrize(
    "text",
    [
        f"{SEED}  secrets: [LONG]",
        f"{SEED}  secret_files: {{LONG_TOKEN: FILE}}",
        f"{SEED}experiment: {{envs: {{LONG_TOKEN: '${{oc.env:LONG}}'}}}}",
        SEED.replace("port: 4567", "api-key: ${oc.env:LONG}"),
    ],
)
def test_a_secret_too_long_to_be_hidden_is_refused_at_every_door(tmp_path: Path, text: str) -> None:
    for length, refused in ((LONGEST, False), (LONGEST + 1, True)):
        (tmp_path / "long.txt").write_text("k" * length)
        text = text.replace("FILE", str(tmp_path / "long.txt"))
        if refused:
            (fault,) = faults(text, folder=tmp_path, LONG="k" * length)
            assert re.search("is (longer|larger) than 16.0 KiB", fault)
        else:
            assert len(load(text, folder=tmp_path, LONG="k" * length).secret_env) == 1
