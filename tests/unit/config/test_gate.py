"""`deploy.gate` as the user writes it: on or off, ports, keys of clients, paths."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.resolved import resolved_yaml
from flagscale_deploy.secrets import Redactor, Secret
from flagscale_deploy.support.learn_secrets import learning
from tests.unit.config.files import faults, load

START = "model_args: {a: {model: /m}}\n"
ALICE, BOB = "sk-of-alice-alone", "sk-of-bob-alone"


def gate(words: str, folder: Path) -> GateSpec | None:
    return load(f"{START}deploy: {{gate: {words}}}\n", folder=folder).gate


@pytest.mark.parametrize("words", ["true", "on", "{}", "{enabled: true}"])
def test_it_is_on(words: str, tmp_path: Path) -> None:
    assert gate(words, tmp_path) == GateSpec()


@pytest.mark.parametrize("words", ["false", "off", "null", "{enabled: false, port: 80}"])
def test_it_is_off(words: str, tmp_path: Path) -> None:
    assert gate(words, tmp_path) is None
    assert load(START, folder=tmp_path).gate is None


def test_its_keys_mean_what_they_say(tmp_path: Path) -> None:
    words = "{port: 8443, host: 10.0.0.1, prometheus_port: 9100, paths: [/tokenize, /score/*], hold: 30s}"
    expected = GateSpec(8443, "10.0.0.1", 9100, paths=("/tokenize", "/score/*"), hold=30.0)
    assert gate(words, tmp_path) == expected
    assert gate("{port: auto, hold: off}", tmp_path) == GateSpec()


def test_keys_come_from_the_environment_and_from_files_and_are_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "bob").write_text(BOB + "\n")
    words = f"{{keys: {{alice: '${{oc.env:ALICE}}'}}, key_files: {{bob: {tmp_path}/bob}}}}"
    spec = load(f"{START}deploy: {{gate: {words}}}\n", folder=tmp_path, ALICE=ALICE)
    assert spec.gate is not None
    assert spec.gate.keys == {"alice": Secret(ALICE), "bob": Secret(BOB)}
    assert not {ALICE, BOB} & {word for word in (json.dumps(spec.public()), repr(spec)) if ALICE in word or BOB in word}
    assert spec.public()["gate"]["keys"] == {"alice": "[REDACTED]", "bob": "[REDACTED]"}


def test_what_is_kept_of_a_run_names_files_and_variables_and_no_key(tmp_path: Path) -> None:
    (tmp_path / "bob").write_text(BOB + "\n")
    keys = f"alice: '${{oc.env:ALICE}}', carol: {ALICE}-two"
    words = f"{{keys: {{{keys}}}, key_files: {{bob: {tmp_path}/bob}}}}"
    kept = resolved_yaml(load(f"{START}deploy: {{gate: {words}}}\n", folder=tmp_path, ALICE=ALICE))
    gate = yaml.safe_load(kept)["deploy"]["gate"]
    assert gate == {
        "keys": {"alice": "${oc.env:ALICE}", "carol": "[REDACTED]"},
        "key_files": {"bob": f"{tmp_path}/bob"},
    }


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("{keys: {'a b': sk-1234567}}", "deploy.gate.keys.a b: is not a name for a key"),
        ("{keys: {api-key: sk-1234567}}", "deploy.gate.keys.api-key: is not a name for a key"),
        ("{keys: {deployment: sk-1234567}}", "deploy.gate.keys.deployment: is not a name for a key"),
        ("{keys: {alice: short}}", "deploy.gate.keys.alice: cannot be sent as a key"),
        ("{keys: {alice: sk-with a blank}}", "deploy.gate.keys.alice: cannot be sent as a key"),
        ("{keys: {alice: sk-umläute}}", "deploy.gate.keys.alice: cannot be sent as a key"),
        ("{keys: {alice: sk-1234567, bob: sk-1234567}}", "deploy.gate.keys.bob: is the key of alice too"),
        ("{key_files: {alice: /nowhere}}", "deploy.gate.key_files.alice: /nowhere"),
        ("{paths: [tokenize]}", "deploy.gate.paths: 'tokenize' is not a path"),
        ("{paths: [/*]}", "deploy.gate.paths: '/*' is not a path"),
        ("{paths: [/v1/../x*]}", "deploy.gate.paths: '/v1/../x*' is not a path"),
        ("{paths: [/metrics]}", "deploy.gate.paths: '/metrics' is for who runs the servers"),
        ("{paths: [/add_worker/*]}", "deploy.gate.paths: '/add_worker/*' is for who runs the servers"),
        ("{port: 70000}", "deploy.gate.port: "),
        ("{prot: 80}", "deploy.gate.prot: unknown key"),
        ("maybe", "deploy.gate: 'maybe': expected true or false"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(words: str, fault: str, tmp_path: Path) -> None:
    (shown,) = faults(f"{START}deploy: {{gate: {words}}}\n", folder=tmp_path)
    assert fault in shown


def test_no_fault_quotes_a_key(tmp_path: Path) -> None:
    redactor = Redactor()
    with learning(redactor):
        faults(f"{START}deploy: {{gate: {{keys: {{alice: [{ALICE}]}}, key_files: {{bob: {BOB}}}}}}}\n", folder=tmp_path)
    assert redactor.redact(f"{ALICE} and {BOB}") == "[REDACTED] and [REDACTED]"


def test_a_program_of_ones_own_has_none(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text("")
    text = "experiment: {task: {type: serve, entrypoint: serve.py}}\ndeploy: {gate: true}\n"
    assert any("deploy.gate: has no effect on a program" in shown for shown in faults(text, folder=tmp_path))


def test_thousands_of_keys_are_compared_soon(tmp_path: Path) -> None:
    keys = ", ".join(f"k{number}: abcdefgh{number}" for number in range(10_000))
    began = time.process_time()
    spec = gate(f"{{keys: {{{keys}, last: abcdefgh9999x}}}}", tmp_path)
    assert time.process_time() - began < 15, "seen: 1.5 s; 20 s where each was compared with all others"
    assert spec is not None
    assert len(spec.keys) == 10_001
