"""The command line we write, read back by the parser of the real vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.schema.short_names import SHORT_NAMES
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.plan import vllm_flags
from flagscale_deploy.plan.vllm import serve_argv

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


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    # FSD_NODE_ENV names an environment that has vLLM already; without it the suite's own is built.
    node = os.environ.get("FSD_NODE_ENV") or request.getfixturevalue("node_env")
    config = tmp_path_factory.mktemp("vllm") / "engine.yaml"
    config.write_text("max-model-len: 4096\n", encoding="utf-8")
    lines = [argv(args) for args, _ in CASES] + [argv({"config": str(config)})]
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
    assert answer["parsed"][-1]["max_model_len"] == 4096


def test_the_tables_are_those_of_the_installed_vllm(answer: Any) -> None:
    flags = answer["flags"]
    assert sorted(vllm_flags.BOOLEANS) == flags["booleans"]
    assert sorted(vllm_flags.SWITCHES) == flags["switches"]
    assert sorted(vllm_flags.WORD_LISTS) == flags["word_lists"]
    assert sorted(vllm_flags.REPEATED) == flags["repeated"]
    assert sorted(vllm_flags.KNOWN) == flags["known"]
    assert dict(SHORT_NAMES) == flags["short_names"]
