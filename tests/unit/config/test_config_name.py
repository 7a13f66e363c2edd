"""`--config-path DIR --config-name NAME`, as FlagScale's run.py takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.cli.options import request_of
from flagscale_deploy.errors import InputError
from flagscale_deploy.output.console import Console
from tests.unit.config.files import EXPERIMENT, LISTED, write


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    files = {"config_qwen2.5_7b.yaml": EXPERIMENT, "config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": LISTED}
    write(tmp_path / "conf", files)
    monkeypatch.chdir(tmp_path)
    return "conf"


def request(**words: Any) -> Any:
    given: dict[str, Any] = {
        "inventory": None,
        "config": None,
        "config_path": None,
        "config_name": None,
        "overrides": (),
    }
    return request_of(Console(), given | words)


@pytest.mark.parametrize("name", ["config_qwen2.5_7b", "config_qwen2.5_7b.yaml", "config", None])
def test_the_name_may_have_dots_and_a_suffix_or_be_hydras_own(conf: str, name: str | None) -> None:
    serve = request(config_path=conf, config_name=name, overrides=("action=stop", "deploy.port=9")).serve
    assert (serve.action, serve.models[0].port, serve.name) == ("stop", 9, "qwen2.5_7b")


def test_the_folder_is_where_you_are_if_none_is_given(conf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(conf)
    assert request(config_name="config_qwen2.5_7b").serve.models


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            {"config_path": "conf", "config_name": "config_qwen2.5_8b"},
            "--config-name: there is no file conf/config_qwen2.5_8b",
        ),
        ({"config_path": "conf", "config_name": "x" * 300}, "--config-name: there is no file conf/xxx"),
        ({"config_path": "cnf", "config_name": "config"}, "--config-path: there is no folder cnf"),
        ({"config_path": "conf", "config": "x.yaml"}, "--config-path: names another configuration than -c x.yaml"),
        ({"config_name": "a", "config": "x.yaml"}, "--config-name: names another configuration than -c x.yaml"),
    ],
)
def test_what_does_not_fit_is_named(conf: str, words: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as raised:
        request(**words)
    assert str(raised.value).startswith(problem)
    assert "→" in str(raised.value)
