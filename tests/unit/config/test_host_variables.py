"""`$NAME` in `experiment.envs`; tests/component/test_injection.py has what bash makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flagscale_deploy.secrets import Secret
from flagscale_deploy.support import shell
from tests.unit.config.files import SEED, faults, load
from tests.unit.plan.given import inventory, model, planned
from tests.unit.plan.given import spec as made

REFERRING = [
    "/x:$LD_LIBRARY_PATH", "/x:${LD_LIBRARY_PATH}", "/x:\\${LD_LIBRARY_PATH}", "$A", "a$$b", "$lower", "\\${lower}",
]  # fmt: skip
LITERAL = ["$(x)", "`x`", "$", "a$", "$1", "$?", "* ? ~", "$-x", "{a,b}", "%A%"]


def envs(text: str) -> str:
    value = json.dumps(text)
    return f"{SEED}experiment: {{envs: {{LD_LIBRARY_PATH: {value}, nodes_envs: {{gpu01: {{B: {value}}}}}}}}}"


@pytest.mark.parametrize("text", REFERRING)
def test_a_variable_of_the_host_is_known_as_one(tmp_path: Path, text: str) -> None:
    spec = load(envs(text), folder=tmp_path)
    for value in (spec.env["LD_LIBRARY_PATH"], spec.host_env["gpu01"]["B"]):
        assert isinstance(value, shell.Expanding)
        assert value == text.replace("\\", "")
    assert json.loads(json.dumps(spec.public()))["env"] == {"LD_LIBRARY_PATH": text.replace("\\", "")}


@pytest.mark.parametrize("text", LITERAL)
def test_what_else_is_shell_is_text(tmp_path: Path, text: str) -> None:
    value = load(envs(text), folder=tmp_path).env["LD_LIBRARY_PATH"]
    assert (value, isinstance(value, shell.Expanding)) == (text, False)


def test_a_key_of_the_file_is_interpolated_first(tmp_path: Path) -> None:
    text = (
        f"{SEED}experiment: {{exp_name: q, envs: {{A: '${{action}}', B: '${{experiment.exp_name}}$A'}}}}\naction: run"
    )
    assert load(text, folder=tmp_path).env == {"A": "run", "B": "q$A"}
    assert "not found" in faults(f"{SEED}experiment: {{envs: {{A: '${{no.such}}'}}}}", folder=tmp_path)[0]


@pytest.mark.parametrize("text", ["pa$$word", "p$WORD", "$lower", "$"])
def test_a_secret_means_itself(tmp_path: Path, text: str) -> None:
    spec = load(f"{SEED}experiment: {{envs: {{DB_PASSWORD: '{text}'}}}}", folder=tmp_path)
    assert spec.secret_env == {"DB_PASSWORD": Secret(text)}


@pytest.mark.parametrize("text", ["$HF_TOKEN", "${HF_TOKEN}", "$MINE"])
def test_a_secret_that_is_a_variable_of_the_host_is_a_fault(tmp_path: Path, text: str) -> None:
    (fault,) = faults(f"{SEED}experiment: {{envs: {{HF_TOKEN: '{text}'}}}}", folder=tmp_path)
    assert "experiment.envs.HF_TOKEN: refers to a variable of the host" in fault
    assert "deploy.secrets" in fault


def test_no_secret_is_copied_into_another_variable(tmp_path: Path) -> None:
    text = f"{SEED}  secrets: [HF_TOKEN]\nexperiment: {{envs: {{MINE: 'a$HF_TOKEN'}}}}"
    (fault,) = faults(text, folder=tmp_path, HF_TOKEN="hf_0123456789")
    assert "experiment.envs.MINE: refers to the secret HF_TOKEN" in fault


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("experiment: {envs: {nodes_envs: {gpu01: {MINE: $HF_TOKEN}}}}", "experiment.envs.nodes_envs.gpu01.MINE"),
        (
            "deploy: {models: {m: {prefill: {num_replicas: 1}, decode: {env: {MINE: $HF_TOKEN}}}}}",
            "deploy.models.m.decode.env.MINE",
        ),
    ],
)
def test_nor_into_one_of_a_host_or_of_a_pool(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "token").write_text("hf_0123456789")
    whole = f"model_args: {{m: {{model: /m}}}}\n{text}\n"
    overrides = f"deploy: {{secret_files: {{HF_TOKEN: {tmp_path}/token}}"
    whole = whole.replace("deploy: {", overrides + ", ") if "deploy: {" in whole else f"{whole}{overrides}}}\n"
    assert any(f"{place}: refers to the secret HF_TOKEN" in fault for fault in faults(whole, folder=tmp_path))


def test_every_script_of_a_host_expands_it_and_an_inventory_s_value_stays() -> None:
    serve = made(model(), ray="on", env={"A": shell.Expanding("/x:$A"), "B": "$A"}, after_stop="true")
    scripts = planned(inventory("gpu01", "gpu02"), serve).scripts
    texts = [text for host in scripts.values() for name, text in host.items() if name != "warm.sh"]  # it is sourced
    assert len(texts) == 6
    assert all("""export A=/x:"${A-}"\nexport B='$A'\n""" in text for text in texts)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("$A", '"${A-}"'), ("a b${C}d", "'a b'\"${C-}\"d"), ("$$", "'$'"), ("$$A", "'$'A"), ("$A$B", '"${A-}""${B-}"'),
        ("", "''"), ("$(x) $A", "'$(x) '\"${A-}\""), ("$A;x", "\"${A-}\"';x'"), ("\n$A", "'\n'\"${A-}\""),
    ],
)  # fmt: skip
def test_it_is_quoted_but_for_the_variables(text: str, word: str) -> None:
    assert shell.quote(shell.Expanding(text)) == word
    with pytest.raises(ValueError, match="NUL"):
        shell.quote(shell.Expanding(f"{text}\0"))
