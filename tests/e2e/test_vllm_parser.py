"""The command line we write, read back by the parser of the real vLLM."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.schema.short_names import SHORT_NAMES
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan import vllm_flags
from flagscale_deploy.plan.vllm import serve_argv
from flagscale_deploy.recipes.dropped import FLAGS
from flagscale_deploy.recipes.recipe import read_recipe, serve_yaml
from tests.unit.recipes.test_every_recipe import recipes, servers_of

pytestmark = pytest.mark.e2e

HOSTILE = """-it's "$(x)" `y` ünï\ncode, a=b.c {not json}"""

CASES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (
        {"tensor-parallel-size": 2, "pipeline-parallel-size": 3},
        {"tensor_parallel_size": 2, "pipeline_parallel_size": 3},
    ),
    ({"gpu-memory-utilization": 0.9, "max-model-len": "32k"}, {"gpu_memory_utilization": 0.9, "max_model_len": 32000}),
    (
        {"trust-remote-code": True, "enable-chunked-prefill": False},
        {"trust_remote_code": True, "enable_chunked_prefill": False},
    ),
    ({"enforce-eager": "yes", "enable-prefix-caching": "off"}, {"enforce_eager": True, "enable_prefix_caching": False}),
    ({"headless": False, "disable-log-stats": True}, {"headless": False, "disable_log_stats": True}),
    ({"chat-template": HOSTILE}, {"chat_template": HOSTILE}),
    ({"served-model-name": ["a", "b c", "d.e"]}, {"served_model_name": ["a", "b c", "d.e"]}),
    ({"served-model-name": [HOSTILE]}, {"served_model_name": [HOSTILE]}),
    ({"served-model-name": HOSTILE}, {"served_model_name": [HOSTILE]}),
    ({"cudagraph-capture-sizes": [1, 2, 4]}, {"cudagraph_capture_sizes": [1, 2, 4]}),
    ({"middleware": ["a.b", "c.d"]}, {"middleware": ["a.b", "c.d"]}),
    (
        {"allowed-origins": ["http://a", HOSTILE], "allowed-methods": []},
        {"allowed_origins": ["http://a", HOSTILE], "allowed_methods": []},
    ),
    ({"device-ids": [0, 1, 3]}, {"device_ids": [0, 1, 3]}),
    (
        {"hf-overrides": {"a": {"b": [1, 1e-5, True, None, HOSTILE]}}},
        {"hf_overrides": {"a": {"b": [1, 1e-5, True, None, HOSTILE]}}},
    ),
    (
        {"limit-mm-per-prompt.image": 8, "limit-mm-per-prompt.video": 0},
        {"limit_mm_per_prompt": {"image": 8, "video": 0}},
    ),
    (
        {
            "hf-overrides.a_b": "8",
            "hf-overrides.t": True,
            "hf-overrides.l": ["x"],
            "hf-overrides.k": "4k",
            "hf-overrides.s": "s",
        },
        {"hf_overrides": {"a_b": "8", "t": True, "l": ["x"], "k": "4k", "s": "s"}},
    ),
    ({"hf-token": True}, {"hf_token": True}),
    ({"host": "0.0.0.0", "seed": 0}, {"host": "0.0.0.0", "seed": 0}),
)


REFUSED = "refused"


def _recipes() -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the name of each server of each recipe, our command line and the recipe's, from `serve` on."""
    for folder, file in recipes():
        document = json.loads(file.read_text(encoding="utf-8"))
        recipe = read_recipe(document, str(file), document["hardware"], document["strategy"])
        (model,) = load_spec(parse_document(serve_yaml(recipe), str(file)), environ={}).models
        for served, argv, _ in servers_of(document, model):
            theirs = [re.sub(r"\$\w+_PORT", "29550", word) for word in argv[1:]]
            yield str(file.relative_to(folder)), list(serve_argv(served, port=8000, extra={}))[1:], theirs


RECIPES = list(_recipes())
OURS = sum(name.startswith(("example/", "my-org/")) for name, _, _ in RECIPES)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    # FSD_NODE_ENV names an environment that has vLLM already; without it the suite's own is built.
    node = os.environ.get("FSD_NODE_ENV") or request.getfixturevalue("node_env")
    config = tmp_path_factory.mktemp("vllm") / "engine.yaml"
    config.write_text("max-model-len: 4096\n", encoding="utf-8")
    lines = [argv(args) for args, _ in CASES] + [argv({"config": str(config)})]
    lines += [words for _, ours, theirs in RECIPES for words in (ours, theirs)]
    done = subprocess.run(
        [str(Path(node) / "bin" / "python"), str(Path(__file__).with_name("vllm_parser.py"))],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def argv(args: dict[str, Any]) -> list[str]:
    model = ModelSpec("m", "/models/Qwen's $(x)", engine_args=args, action_args=("enable-lora",))
    return list(serve_argv(model, port=4567, extra={"distributed-executor-backend": "ray"}))[1:]


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: ",".join(CASES[index][0]))
def test_vllm_reads_back_what_was_asked(answer: Any, index: int) -> None:
    parsed = answer["parsed"][index]
    assert isinstance(parsed, dict), parsed
    assert {key: parsed[key] for key in CASES[index][1]} == CASES[index][1]
    assert (parsed["model_tag"], parsed["port"], parsed["enable_lora"]) == ("/models/Qwen's $(x)", 4567, True)
    assert parsed["distributed_executor_backend"] == "ray"


def test_vllm_reads_its_own_config_file(answer: Any) -> None:
    assert answer["parsed"][len(CASES)]["max_model_len"] == 4096


def test_vllm_reads_what_a_recipe_became_as_the_recipe_s_own_command(answer: Any) -> None:
    """But for what the plan supplies. Refusals of commands of the site's own are the recipes'."""
    parsed = [_comparable(values) for values in answer["parsed"][len(CASES) + 1 :]]
    compared = zip(RECIPES, parsed[::2], parsed[1::2], strict=True)
    different = [name for (name, _, _), ours, theirs in compared if ours != theirs and theirs != REFUSED]
    assert (different, len(parsed)) == ([], 2 * len(RECIPES))
    assert REFUSED not in parsed[: 2 * OURS : 2]


def _comparable(values: Any) -> Any:
    """Return values without what the plan supplies, and without an identifier that is new each time."""
    if isinstance(values, str):
        return REFUSED
    kept = {key: value for key, value in values.items() if key.replace("_", "-") not in FLAGS}
    return kept | {"kv_transfer_config": re.sub("engine_id='[^']*'", "", str(values["kv_transfer_config"]))}


def test_the_tables_are_those_of_the_installed_vllm(answer: Any) -> None:
    flags = answer["flags"]
    assert sorted(vllm_flags.BOOLEANS) == flags["booleans"]
    assert sorted(vllm_flags.SWITCHES) == flags["switches"]
    assert sorted(vllm_flags.WORD_LISTS) == flags["word_lists"]
    assert sorted(vllm_flags.REPEATED) == flags["repeated"]
    assert sorted(vllm_flags.KNOWN) == flags["known"]
    assert dict(SHORT_NAMES) == flags["short_names"]
