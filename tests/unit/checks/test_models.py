"""Whether a model can be served as it is asked for: numbers of its config.json against the flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flagscale_deploy.checks.model_memory import need
from flagscale_deploy.checks.model_numbers import longest, tokens
from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context
from flagscale_deploy.facts.model import ModelFiles
from tests.unit.checks.given import CONFIG, FILES, GIB, HOSTS, complaints, make_context, only
from tests.unit.plan.given import model, spec


def serving(flags: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None, **files: Any) -> Context:
    """One instance over all GPUs, with these flags, of a model whose config.json says this as well."""
    made = replace(FILES, config={**CONFIG, **(config or {})}, **files)
    words = dict(flags or {})
    tp = words.pop("tp", 32)
    env = words.pop("env", {})
    serve_spec = spec(model(tp=tp, engine_args={"max-model-len": 32768} | words), env=env)
    return make_context({name: {"models": (made,)} for name in HOSTS}, serve_spec=serve_spec)


@pytest.mark.parametrize(
    ("flags", "config", "problem", "remedy"),
    [
        (
            {"tp": 24},
            {},
            "tensor-parallel-size 24 with 64 attention heads, 8 key-value heads",
            "1, 2, 4, 8, 16, 32, 64",
        ),
        ({"tp": 14}, {"num_attention_heads": 28, "num_key_value_heads": 4}, "28 attention heads, 4 key", "1, 2, 4, 28"),
        (
            {"tp": 3},
            {"text_config": {"num_attention_heads": 16, "num_hidden_layers": 2}},
            "16 attention heads",
            "1, 2, 4",
        ),
        ({"tp": 1, "pipeline-parallel-size": 4}, {"num_hidden_layers": 2}, "with 2 layers", "lower pipeline"),
    ],
)
def test_parallel_sizes_that_do_not_divide(flags: Any, config: Any, problem: str, remedy: str) -> None:
    if "text_config" in config:
        config = {**config, "num_attention_heads": None}
    verdict = only(serving(flags, config))
    assert (verdict.check, verdict.state, verdict.host) == ("model-parallel", "failed", "gpu01")
    assert problem in verdict.found
    assert remedy in verdict.remedy
    assert "qwen.yaml: model_args.qwen" in verdict.remedy


@pytest.mark.parametrize("flags", [{"tp": 16}, {"tp": 8}, {"tp": 8, "pipeline-parallel-size": 4}])
def test_parallel_sizes_that_divide(flags: Any) -> None:
    assert complaints(serving(flags)) == []


def test_a_model_that_needs_more_positions_than_it_has() -> None:
    verdict = only(serving({"max-model-len": 65536}))
    assert (verdict.check, verdict.state, verdict.host) == ("model-length", "failed", "gpu01")
    assert verdict.found == "max-model-len 65536, but max_position_embeddings is 32768"
    assert verdict.remedy.startswith("set max-model-len: 32768 (qwen.yaml: model_args.qwen)")


@pytest.mark.parametrize(
    ("flags", "config"),
    [
        ({"max-model-len": 65536, "env": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}, {}),
        ({"max-model-len": 65536, "hf-overrides": {"max_position_embeddings": 65536}}, {}),
        ({"max-model-len": "32k"}, {}),
        ({"max-model-len": 65536}, {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ({"max-model-len": 131072},
         {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}),
        ({"max-model-len": 65536}, {"model_max_length": 65536}),
        ({"max-model-len": -1}, {}),
        ({"max-model-len": "auto"}, {}),
        ({"max-model-len": 65536}, {"max_position_embeddings": None}),
    ],
)  # fmt: skip
def test_lengths_that_vllm_takes(flags: Any, config: Any) -> None:
    assert [complaint for complaint in complaints(serving(flags, config)) if complaint.check == "model-length"] == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4096, 4096), ("4096", 4096), ("32k", 32000), ("32K", 32768), ("1.5k", 1500), ("auto", None), (-1, None),
     (True, None), (None, None), ("", None), ([], None), ("9" * 40, None)],
)  # fmt: skip
def test_numbers_of_tokens_are_read_as_vllm_reads_them(value: Any, expected: int | None) -> None:
    assert tokens(value) == expected


def test_llama3_scaling_is_in_the_length_already() -> None:
    scaled = {"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    assert longest(scaled) == (131072, "max_position_embeddings")


def test_weights_that_do_not_fit_show_the_arithmetic() -> None:
    verdict = only(serving({"tp": 1}))
    assert (verdict.check, verdict.state, verdict.host) == ("model-memory", "failed", "gpu01")
    assert verdict.found == (
        "weights 135.4 GiB / 1 = 135.4 GiB, KV cache 32768 tokens × 320.0 KiB = 10.0 GiB, 512.0 MiB for CUDA: "
        "145.9 GiB of 79.6 GiB × 0.92 = 73.3 GiB"
    )
    assert verdict.remedy == "use more or larger GPUs, or raise tensor-parallel-size (qwen.yaml: model_args.qwen)"


def test_a_sequence_that_does_not_fit_gets_the_length_that_does() -> None:
    verdict = only(serving({"tp": 2, "gpu-memory-utilization": 0.9}))
    assert verdict.check == "model-memory"
    length = int(verdict.remedy.partition("set max-model-len: ")[2].partition(",")[0])
    assert complaints(serving({"tp": 2, "gpu-memory-utilization": 0.9, "max-model-len": length})) == []
    longer = serving({"tp": 2, "gpu-memory-utilization": 0.9, "max-model-len": length + 1})
    assert only(longer).check == "model-memory"


@pytest.mark.parametrize(
    "flags",
    [{"tp": 4}, {"tp": 2, "pipeline-parallel-size": 2}, {"tp": 2, "kv-cache-dtype": "fp8", "quantization": "fp8"}],
)
def test_what_fits(flags: Any) -> None:
    context = serving(flags)
    assert complaints(context) == []
    (passed,) = [verdict for verdict in judge(context) if verdict.check == "model-memory"]
    assert (passed.state, "KV cache 32768 tokens" in passed.found) == ("passed", True)


def test_the_cache_of_known_models_by_hand() -> None:
    """Per token: Llama-3.1-8B 128 KiB (2 × 32 layers × 8 heads × 128 × 2 bytes); DeepSeek-V3 61 × (512 + 64) × 2."""
    llama = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    deepseek = {"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    weights = {"model.safetensors": 16 * GIB}

    def per_token(config: Mapping[str, Any], **flags: Any) -> float:
        wanted = need(ModelFiles("/m", config=config, weights=weights), model(engine_args=flags), 1)
        assert wanted is not None
        return wanted.token

    assert per_token(llama) == 128 * 1024
    assert per_token(llama, **{"tensor-parallel-size": 16}) == 128 * 1024 / 8
    assert per_token(llama, **{"kv-cache-dtype": "fp8"}) == 64 * 1024
    assert per_token(llama, **{"dtype": "float32"}) == 256 * 1024
    assert per_token(deepseek, **{"tensor-parallel-size": 8}) == 61 * 576 * 2
    assert per_token({**llama, "sliding_window": 4096}) == 0
    assert per_token({**llama, "layer_types": ["full_attention", "sliding_attention"] * 16}) == 64 * 1024


@pytest.mark.parametrize(
    ("config", "flags", "gib"),
    [
        ({}, {}, 16.0),
        ({"torch_dtype": "float32"}, {}, 8.0),
        ({"torch_dtype": "float32"}, {"dtype": "float32"}, 16.0),
        ({}, {"quantization": "fp8"}, 8.0),
        ({"quantization_config": {"quant_method": "fp8"}}, {"quantization": "fp8"}, 16.0),
        ({}, {"cpu-offload-gb": 4}, 12.0),
    ],
)
def test_what_of_the_files_arrives_on_gpus(config: Any, flags: Any, gib: float) -> None:
    files = ModelFiles("/m", config=config, weights={"model.safetensors": 16 * GIB, "pytorch_model.bin": 16 * GIB})
    wanted = need(files, model(engine_args=flags), 1)
    assert wanted is not None
    assert wanted.weights == gib * GIB


POINTED = dict.fromkeys(FILES.weights, "is a Git LFS pointer of 134 bytes")


def test_pointers_of_git_lfs_are_no_weights_and_count_as_what_the_index_says() -> None:
    """As `git clone` leaves a model of 145 GB where Git LFS is not installed."""
    pointers = dict.fromkeys(FILES.weights, 134)
    context = serving({"tp": 1}, weights=pointers, torn=POINTED, pointers=tuple(POINTED), total=145_412_407_296)
    verdicts = complaints(context)
    assert [(verdict.check, verdict.host) for verdict in verdicts] == [
        ("model-weights", "gpu01"),
        ("model-memory", "gpu01"),
    ]
    assert "is a Git LFS pointer of 134 bytes and 34 more" in verdicts[0].found
    assert verdicts[0].remedy == "ssh 10.0.0.1 git -C /models/qwen lfs pull   (on every host)"
    assert "weights 135.4 GiB / 1" in verdicts[-1].found


def test_the_size_of_pointers_is_not_known_without_an_index() -> None:
    context = serving(weights=dict.fromkeys(FILES.weights, 134), torn=POINTED)
    (memory,) = [verdict for verdict in judge(context) if verdict.check == "model-memory"]
    assert (memory.state, memory.found) == ("skipped", "the size of the weights is unknown")


def test_weights_that_can_not_be_looked_into_are_measured_by_their_index() -> None:
    weights = {f"pytorch_model-0000{part}-of-00002.bin": 9_000_000_000 for part in (1, 2)}
    whole: dict[str, Any] = {"weights": weights, "indexed": tuple(weights)}
    assert complaints(serving(total=17_999_000_000, **whole)) == []
    verdicts = complaints(serving(total=30_000_000_000, **whole))
    assert {(verdict.check, verdict.state) for verdict in verdicts} == {("model-weights", "failed")}
    assert verdicts[0].found == "/models/qwen: its files have 18000000000 of 30000000000 bytes"


def test_an_index_that_contradicts_whole_files_is_a_warning() -> None:
    """Some were left as they were when the weights were converted."""
    verdicts = complaints(serving(total=2 * sum(FILES.weights.values())))
    assert {(verdict.check, verdict.state) for verdict in verdicts} == {("model-weights", "warning")}


def test_what_is_said_of_memory_is_said_of_complete_files() -> None:
    broken = replace(FILES, weights=dict.fromkeys(FILES.weights, 134), torn=POINTED)
    context = make_context(
        {"gpu01": {"models": (broken,)}}, serve_spec=spec(model(tp=32, engine_args={"max-model-len": 32768}))
    )
    assert [complaint.host for complaint in complaints(context)] == ["gpu01"]
    (memory,) = [verdict for verdict in judge(context) if verdict.check == "model-memory"]
    assert "weights 135.4 GiB / 32" in memory.found


def test_code_of_its_own_needs_leave() -> None:
    own = {"model_type": "fancy", "auto_map": {"AutoConfig": "configuration_fancy.FancyConfig"}}
    hashes = {**FILES.hashes, "configuration_fancy.py": "1"}
    verdict = only(serving(config=own, hashes=hashes))
    assert (verdict.check, verdict.state, verdict.host) == ("model-code", "failed", "gpu01")
    assert verdict.found == "/models/qwen needs its own code (configuration_fancy.py)"
    assert "set trust-remote-code: true" in verdict.remedy
    assert complaints(serving({"trust-remote-code": True}, own, hashes=hashes)) == []


def test_a_type_that_vllm_knows_needs_no_code_though_it_brings_some() -> None:
    """As DeepSeek-V3 does: Transformers takes its own class."""
    own = {"model_type": "deepseek_v3", "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}
    assert complaints(serving(config=own)) == []


def test_a_model_without_a_chat_template_anywhere_is_one_warning() -> None:
    verdict = only(serving(chat_template=False))
    assert (verdict.check, verdict.state) == ("model-tokenizer", "warning")
    assert verdict.remedy == "set chat-template: FILE (qwen.yaml: model_args.qwen)"
    assert complaints(serving({"chat-template": "/t.jinja"}, chat_template=False)) == []


def test_a_model_by_name_is_not_looked_for() -> None:
    context = make_context(
        {name: {"models": ()} for name in HOSTS}, serve_spec=spec(model(model="Qwen/Qwen2.5-72B", tp=32))
    )
    assert complaints(context) == []
    skipped = {verdict.check for verdict in judge(context) if verdict.state == "skipped"}
    assert {"model-path", "model-same", "model-weights", "model-memory"} <= skipped


def test_only_hosts_that_load_a_model_need_it() -> None:
    serve_spec = spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="on")
    gone = {name: {"models": (ModelFiles(FILES.path, "no such file or directory"),)} for name in HOSTS[1:]}
    assert complaints(make_context(gone, serve_spec=serve_spec)) == []
