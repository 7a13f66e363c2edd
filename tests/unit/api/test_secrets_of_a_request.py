"""What a program keeps that calls the API, without a console that knows the secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flagscale_deploy import api
from flagscale_deploy.api.request import Options, load_request
from tests.unit.api.world import World

CANARY = "Zq7-kanarie-vogel"
HOSTS = "hosts:\n- {name: gpu01, address: 10.0.0.1, gpus: 8%s}\n- {name: gpu02, address: 10.0.0.2, gpus: 8}\n"
SERVE = "model_args:\n  qwen: {model-tag: /models/qwen, tensor-parallel-size: 16, port: 4567%s}\n%s\n"
PLACES = {
    "a key of the gate": ("", "deploy: {gate: {keys: {alice: CANARY}}}", "", ()),
    "a key of a gate that is off": ("", "deploy: {gate: {enabled: false, keys: {alice: CANARY}}}", "", ()),
    "the same as overrides": ("", "", "", ("deploy.gate.enabled=false", "deploy.gate.keys.alice=CANARY")),
    "a secret variable": ("", "experiment: {envs: {HF_TOKEN: CANARY}}", "", ()),
    "a secret variable in another": ("", "experiment: {envs: {MINE: '${oc.env:MY_TOKEN}'}}", "", ()),
    "a secret variable in a flag": (", served-model-name: '${oc.env:MY_TOKEN}'", "", "", ()),
    "within a flag": (", model-loader-extra-config: {api_key: CANARY}", "", "", ()),
    "a command": ("", "experiment: {cmds: {before_start: export MY_TOKEN=CANARY}}", "", ()),
    "a command of a host": ("", "", ", before_start: export MY_TOKEN=CANARY", ()),
    "a variable of a host": ("", "", ", env: {MY_TOKEN: CANARY}", ()),
}


@pytest.mark.parametrize(("flags", "more", "host", "words"), PLACES.values(), ids=PLACES.keys())
def test_a_run_by_the_api_keeps_no_secret(
    flags: str, more: str, host: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    world = World(tmp_path)
    (tmp_path / "hosts.yaml").write_text(HOSTS.replace("%s", host).replace("CANARY", CANARY))
    (tmp_path / "qwen.yaml").write_text((SERVE % (flags, more)).replace("CANARY", CANARY))
    overrides = (*(word.replace("CANARY", CANARY) for word in words), f"experiment.exp_dir={tmp_path}")
    options = Options(str(tmp_path / "hosts.yaml"), str(tmp_path / "qwen.yaml"), overrides, "qwen")
    asked = load_request(options, {"MY_TOKEN": CANARY})
    request = replace(asked, options=replace(options, connect=world.request().options.connect))
    api.run(request)
    (kept,) = world.kept["gpu01"].values()
    assert json.loads(kept)["servers"]
    assert CANARY not in kept
    assert CANARY not in str(api.plan_change(request).difference)
