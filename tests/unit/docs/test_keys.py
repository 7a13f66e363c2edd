"""Every key that the code takes is in the pages, with the code's own default; and no other is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from docs.generate.keys import settings_of
from flagscale_deploy.config import translate
from flagscale_deploy.config.dialects import list_form, llm_form
from flagscale_deploy.config.dialects.forms import BODY_KEYS
from flagscale_deploy.config.dialects.model import SECRET_FLAGS
from flagscale_deploy.config.experiment import Experiment
from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.nodes import Node
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.schema.base import Settings
from flagscale_deploy.config.schema.settings import Deploy, RouterSettings
from flagscale_deploy.config.spec import DEFAULT_ENGINE_PORT, Timeouts
from flagscale_deploy.inventory.keys import HOST_KEYS
from flagscale_deploy.plan.vllm import serve_argv
from tests.docs.pages import code, tables

PAGE = "docs/serve-yaml.md"
OTHER_PLACES = {("experiment", "deploy"), ("experiment.runner", "deploy")}
"""All places of `deploy` are read as one. The page says so in words."""

ANYTHING = {
    ("deploy", "instance"),
    ("experiment.runner.cli_args", "engine_args"),
    ("deploy.models.<model>", "resources"),
    ("deploy.models.<model>", "accelerator_type"),
}
"""Their classes take any value, as those of ignored keys do; other code reads them."""

BY_ITSELF = {"ray", "router", "gate", "restart", "backoff"}
"""Keys that hold a mapping, or a word."""


def key_tables() -> dict[str, list[str]]:
    """Return the rows of the serve YAML's tables by their key, as the code spells it."""
    return {code(row[0])[0].replace("-", "_"): row for table in tables("key", PAGE) for row in table}


def keys_of(kind: type[Settings], path: str) -> Iterator[tuple[str, str, bool]]:
    """(path of the mapping, key, whether it is ignored) for every key below a path."""
    for name, field in kind.model_fields.items():
        inner, mapped = settings_of(field.annotation)
        if inner is None or name in BY_ITSELF:
            yield path, name, field.annotation is Any
        if inner is not None:
            placeholder = "<model>" if name == "models" else "<host>"
            yield from keys_of(inner, f"{path}.{name}" + (f".{placeholder}" if mapped else ""))


def all_keys() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(path of the mapping, key) of what is read, and of what is known and ignored."""
    keys = {*keys_of(Deploy, "deploy"), *keys_of(Experiment, "experiment")}
    ignored = {(path, name) for path, name, anything in keys if anything} - ANYTHING - OTHER_PLACES
    return {(path, name) for path, name, _ in keys} - ignored - OTHER_PLACES, ignored


def test_every_key_of_a_host_is_documented_and_no_other() -> None:
    (hosts,) = tables("key", "docs/inventory.md")
    assert [code(row[0]) for row in hosts] == [[key] for key in HOST_KEYS]


def test_every_key_of_the_serve_yaml_is_documented_and_no_other() -> None:
    read = {f"{path}.{name}" for path, name in all_keys()[0]}
    model = {f"model_args.<model>.{key}" for key in ("model_tag", "<flag>", "port", "action_args", *SECRET_FLAGS)}
    listed = {"engine_args_specific.vllm" if key == "engine_args_specific" else key for key in list_form.KEYS}
    others = {"action", "experiment.envs.nodes_envs.<host>", "hostfile.nodes", "llm"}
    assert set(key_tables()) == read | {key.replace("-", "_") for key in model} | listed - {"profile"} | others


def test_every_key_at_the_top_and_of_a_node_is_documented_and_no_other() -> None:
    assert set(translate._ROOT_KEYS) - {"hydra"} == {"action", "deploy", "experiment", "model_args", "serve"}
    beside = {"deploy", "model_args", "hostfile", "command_line_mode", *llm_form.ROOTS}
    assert set(BODY_KEYS) - beside == {key for place, key in ignored_in_the_page() if place == "beside deploy"}
    assert {code(key_tables()["llm"][0])[0], *code(key_tables()["llm"][1])} >= {*llm_form.ROOTS}
    assert {*code(key_tables()["hostfile.nodes"][1])} == {"master:", "node:"}
    (nodes,) = tables("key of a node", PAGE)
    assert [code(row[0]) for row in nodes] == [[key] for key in Node.model_fields]


def test_every_ignored_key_is_named_and_no_other() -> None:
    elsewhere = {
        ("top", "hydra"),
        ("list", "profile"),
        ("beside deploy", "logging"),
        ("beside deploy", "use_native_serve"),
    }
    assert ignored_in_the_page() == all_keys()[1] | elsewhere


def test_every_policy_of_the_router_is_named_and_no_other() -> None:
    named = code(key_tables()["deploy.router.policy"][1])
    assert named
    for word in named:
        assert RouterSettings.model_validate({"policy": word}).policy == word
    schema = RouterSettings.model_json_schema()["properties"]["policy"]
    assert sorted(named) == sorted(word for choice in schema["anyOf"] for word in choice.get("enum", ()))


def ignored_in_the_page() -> set[tuple[str, str]]:
    (rows,) = tables("at", PAGE)
    words = {"the top": "top", "an entry of the list form": "list", "beside `deploy`": "beside deploy"}
    return {(words.get(row[0]) or code(row[0])[0], key) for row in rows for key in code(row[1])}


def test_the_defaults_in_the_tables_are_the_code_s() -> None:
    documented = key_tables()
    for field in fields(Timeouts):
        assert documented[f"deploy.timeouts.{field.name}"][2] == f"{field.default:g}"
    asked = RestartSpec()
    restart = {
        "policy": "on-failure",
        "max": f"{asked.maximum}",
        "backoff.first": f"{asked.first:g}",
        "backoff.factor": f"{asked.factor:g}",
        "backoff.max": f"{asked.ceiling:g}",
        "reset_after": f"{asked.reset_after / 60:g}m",
        "hang": f"{asked.hang / 60:g}m",
        "interval": f"{asked.interval:g}",
        "boot": str(asked.boot).lower(),
        "notify": "none",
    }
    assert documented["deploy.restart"][2] == asked.policy
    assert {key: documented[f"deploy.restart.{key}"][2] for key in restart} == restart
    assert documented["deploy.port"][2] == str(DEFAULT_ENGINE_PORT)
    assert documented["model_args.<model>.port"][2] == str(DEFAULT_ENGINE_PORT)


@pytest.mark.parametrize("row", tables("you write", "docs/flags.md")[0], ids=lambda row: code(row[0])[0])
def test_a_flag_becomes_what_the_page_says(row: list[str], tmp_path: Any) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(f"model_args:\n  m:\n    model: /m\n    {code(row[0])[0]}\n")
    (model,) = load_spec(path).models
    words = serve_argv(model, port=1, extra={})[3:-1]
    assert " ".join(words) == ("" if row[1].startswith("nothing") else code(row[1])[0])
