"""Read numbers in a model's `config.json` as vLLM 0.32 does (`model_arch_config_convertor.py`).

The file may contain anything: values that are no number of the expected kind are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LARGEST = 10**12
_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
_UNSCALED = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope"})
_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the text part of a multimodal model's configuration, else the configuration itself."""
    part: Mapping[str, object] = config
    for _ in range(3):
        inner = next((nested for key in _NESTED if isinstance(nested := part.get(key), Mapping)), None)
        if inner is None or whole(part, "num_attention_heads") is not None:
            break
        part = inner
    return part


def whole(config: Mapping[str, object], *keys: str) -> int | None:
    """Return the first positive whole number among some keys; None if there is none."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, float) and value == value and abs(value) < LARGEST and value == int(value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST:
            return value
    return None


def heads(config: Mapping[str, object]) -> int | None:
    """Return the number of attention heads."""
    return whole(text_config(config), "num_attention_heads", "n_head", "n_heads")


def kv_heads(config: Mapping[str, object]) -> int | None:
    """Return the number of key-value heads; without it, that of attention heads."""
    names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
    return whole(text_config(config), *names) or heads(config)


def layers(config: Mapping[str, object]) -> int | None:
    """Return the number of hidden layers."""
    return whole(text_config(config), "num_hidden_layers", "n_layer", "n_layers", "num_layers")


def experts(config: Mapping[str, object]) -> int | None:
    """Return the number of experts; None for a model without, and where it cannot be read."""
    text = text_config(config)
    value = next((text[key] for key in _EXPERTS if key in text), None)
    return whole({"experts": value[0] if isinstance(value, list) and value else value}, "experts")


def is_dense(config: Mapping[str, object]) -> bool:
    """Return whether a configuration surely is that of a model without experts: nothing in it speaks of them."""
    words = str(config).casefold()
    return heads(config) is not None and "expert" not in words and "moe" not in words


def longest(config: Mapping[str, object]) -> tuple[int, str] | None:
    """Return the most tokens that a model has positions for, and the key that says so; None if no key does.

    As in vLLM, it is the smallest of the keys, times the factor of some kinds of RoPE scaling. A larger
    `model_max_length` is allowed as well. For YaRN versions differ: the larger result counts.
    """
    text = text_config(config)
    lengths = {key: value for key in _LENGTHS if (value := whole(text, key)) is not None}
    if not lengths:
        return None
    key = min(lengths, key=lambda name: lengths[name])
    length, rope = lengths[key], _rope(text)
    kind = rope.get("rope_type") or rope.get("type")
    scale = rope.get("factor")
    factor = float(scale) if isinstance(scale, int | float) and 1 < scale < LARGEST else 1.0
    if factor > 1 and "gemma3" not in str(config.get("model_type")) + str(text.get("model_type")):
        if kind not in _UNSCALED:
            length, key = int(length * factor), f"{key} × factor"
        elif kind in ("yarn", "deepseek_yarn") and (original := whole(rope, "original_max_position_embeddings")):
            length = max(length, int(original * factor))
    allowed = max(whole(config, "model_max_length") or 0, whole(text, "model_max_length") or 0)
    return (allowed, "model_max_length") if allowed > length else (length, key)


def tokens(value: Any) -> int | None:
    """Return a number of tokens as vLLM's command line takes it (4096, "32k", "1M"); None for none and `auto`."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if 0 < value < LARGEST else None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kKmMgGtT]?)", str(value).strip())
    if match is None:
        return None
    number = float(match[1]) * _SUFFIXES.get(match[2], 1)
    return int(number) if 0 < number < LARGEST else None


def _rope(text: Mapping[str, object]) -> Mapping[str, object]:
    """Return RoPE's parameters: `rope_parameters` since Transformers 5, `rope_scaling` before."""
    candidates = [text.get(key) for key in ("rope_scaling", "rope_parameters")]
    return next((parameters for parameters in candidates if isinstance(parameters, Mapping)), {})
