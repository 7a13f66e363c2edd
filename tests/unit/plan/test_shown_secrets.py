"""`plan` warns of a secret that would stand on an engine's command line, where every user of the host sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.validate import shown_secrets
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.learn_secrets import learning
from flagscale_deploy.support.value import Value
from tests.unit.plan.given import model, spec

SHOWN: dict[str, Value] = {
    "model-loader-extra-config": {"aws_secret_access_key": "Zq9"},
    "model-loader-extra-config.password": "Zq9",
    "kv-transfer-config": {"kv_connector_extra_config": {"nodes": [{"apiKey": "Zq9"}]}},
    "hf-overrides": '{"a": {"token": "Zq9"}}',
    "otlp-traces-endpoint": "https://me:passw0rd@collector/x",
    "served-model-name": "hf_CanaryCanaryCanary0123",
    "some-api-key": ["Zq9"],
}
NOT_SHOWN: dict[str, Value] = {
    "tokenizer": "/m", "max-num-batched-tokens": 8192, "allow-credentials": True, "hf-overrides": "{broken", "seed": 1,
    "api-key-file": "/k", "model-loader-extra-config": {"concurrency": 8, "secret": ""},
}  # fmt: skip


@pytest.mark.parametrize("flag", SHOWN)
def test_a_secret_in_a_flag_is_a_warning_at_its_place(flag: str) -> None:
    value = SHOWN[flag]
    text = value if isinstance(value, str) else json.dumps(value)
    for serve, place in (
        (spec(model(engine_args={flag: value})), f"model_args.qwen.{flag}"),
        (spec(model(action_args=(f"{flag}={text}",))), f"model_args.qwen.{flag}"),
        (spec(model(), host_engine_args={"gpu01": {flag: value}}), f"experiment.node_args.gpu01.engine_args.{flag}"),
    ):
        (warning,) = shown_secrets(serve)
        assert warning.where == f"qwen.yaml: {place}"
        assert "every user of a host sees" in warning.problem
        assert text not in str(warning)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("${oc.env:HF_TOKEN}", 1),
        ("org/${oc.env:HF_TOKEN}", 1),
        ("${oc.env:${oc.env:WHICH}}", 1),
        ("${oc.decode:${oc.env:LIST_SECRET}}", 1),
        ("${oc.create:${oc.env:JSON_KEY}}", 1),
        ("${oc.env:PLAIN}", 0),
    ],
)
def test_a_secret_variable_in_any_flag_is_a_warning(tmp_path: Path, value: str, shown: int) -> None:
    (tmp_path / "c.yaml").write_text(
        f"experiment: {{exp_name: q}}\nmodel_args: {{m: {{model: a/b, served-model-name: '{value}'}}}}"
    )
    environ = {
        "HF_TOKEN": "canary-1", "WHICH": "HF_TOKEN", "PLAIN": "canary-2", "LIST_SECRET": "[canary-3]",
        "JSON_KEY": '{"a": {"b": ["canary-4"]}}',
    }  # fmt: skip
    redactor = Redactor()
    with learning(redactor):
        serve = load_spec(tmp_path / "c.yaml", environ=environ)
    assert len(shown_secrets(serve)) == shown
    assert ("canary" in redactor.redact(repr(serve.models))) is not bool(shown)


def test_no_deployment_is_named_by_a_secret_variable(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("experiment: {exp_name: 'x-${oc.env:HF_TOKEN}'}\nmodel_args: {m: {model: a/b}}")
    with pytest.raises(InputError, match="name holds a secret variable's value") as caught:
        load_spec(tmp_path / "c.yaml", environ={"HF_TOKEN": "canary"})
    assert "canary" not in str(caught.value)
    assert load_spec(tmp_path / "c.yaml", environ={"HF_TOKEN": "canary"}, name="q").name == "q"


@pytest.mark.parametrize("flag", NOT_SHOWN)
def test_other_flags_are_none(flag: str) -> None:
    assert shown_secrets(spec(model(engine_args={flag: NOT_SHOWN[flag]}))) == []
