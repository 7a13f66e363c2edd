"""Whether weights and the KV cache of one sequence fit on a GPU: the arithmetic, at its least.

vLLM 0.32 takes `gpu-memory-utilization` (0.92) of a GPU for everything, and refuses to start when what the weights
leave can't hold one sequence of max-model-len (`kv_cache_utils.py`: "To serve at least one request …"). Activations
and CUDA's own memory are counted low, layers that keep no cache for every token are left out, so that what is said not
to fit does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagscale_deploy.checks.model_numbers import heads, kv_heads, layers, text_config, whole
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.support.units import GIB, KIB, format_size

UTILIZATION = 0.92
OVERHEAD = GIB // 2
PREFERRED = (".safetensors", ".bin", ".pt", ".gguf")
QUANTIZED = {"fp8": 0.5, "experts_int8": 0.5, "bitsandbytes": 0.25}
"""What of 16-bit weights is left when they are quantized while they are loaded."""


@dataclass(frozen=True)
class Need:
    """What one GPU has to hold, in bytes; `token` is the cache of one token, `length` the tokens of one sequence."""

    files: float
    ranks: int
    token: float
    length: int

    @property
    def weights(self) -> float:
        return self.files / self.ranks

    @property
    def total(self) -> float:
        return self.weights + self.token * self.length + OVERHEAD

    def words(self, memory: int, utilization: float) -> str:
        """The arithmetic, for a GPU of so many bytes."""
        cache = self.token * self.length
        return (
            f"weights {format_size(self.files)} / {self.ranks} = {format_size(self.weights)}, "
            f"KV cache {self.length} tokens × {self.token / KIB:.1f} KiB = {format_size(cache)}, "
            f"{format_size(OVERHEAD)} for CUDA: {format_size(self.total)} of "
            f"{format_size(memory)} × {utilization:g} = {format_size(memory * utilization)}"
        )

    def longest(self, memory: float) -> int:
        """The longest sequence that would fit."""
        left = memory - self.weights - OVERHEAD
        return int(left / self.token) if left > 0 and self.token > 0 else 0


def need(files: ModelFiles, model: ModelSpec, length: int | None) -> Need | None:
    """What a GPU has to hold; `length` None counts one token. None where the files don't tell their sizes.

    Of files that are not complete the size counts that their index says.
    """
    weights = (files.total or 0) if incomplete(files) else weight_bytes(files)
    if not weights:
        return None
    expert = model.parallel("data") if switched_on(model, "enable-expert-parallel") else 1
    ranks = model.parallel("tensor") * model.parallel("pipeline") * expert
    offloaded = max(0.0, number(model.engine_args.get("cpu-offload-gb")) or 0.0) * GIB * ranks
    kept = max(0.0, weights * _loaded_share(files.config, model) - offloaded)
    return Need(kept, max(1, ranks), _token_bytes(files.config, model), length or 1)


def incomplete(files: ModelFiles) -> list[str]:
    """What is missing, empty or torn, in words, each beginning with the name of the file; [] where all is there.

    Files that can't be looked into have the size of an index as their only measure; safetensors tell their own, and an
    index is known to be wrong where weights were converted.
    """
    gone = [f"{name} is missing" for name in files.indexed if name not in files.weights]
    empty = [f"{name} is empty" for name, bytes_ in files.weights.items() if bytes_ == 0]
    loaded = files.indexed or files.weights
    broken = [f"{name} {problem}" for name, problem in files.torn.items() if name in loaded]
    if found := [*gone, *empty, *broken]:
        return found
    if not files.weights:
        return ["no weight files"]
    opaque = any(not name.endswith(".safetensors") for name in files.indexed)
    bytes_ = weight_bytes(files)
    if opaque and files.total is not None and bytes_ < files.total:
        return [f"its files have {bytes_} of {files.total} bytes"]
    return []


def weight_bytes(files: ModelFiles) -> int:
    """The size of the files that vLLM loads: those of the index, else of the first format that is there."""
    sizes = {name: each for name, each in files.weights.items() if isinstance(each, int) and each >= 0}
    if indexed := [sizes[name] for name in files.indexed if name in sizes]:
        return sum(indexed)
    for suffix in PREFERRED:
        found = [each for name, each in sizes.items() if name.endswith(suffix) and not name.startswith("consolidated")]
        if found:
            return sum(found)
    return sum(sizes.values())


def utilization(model: ModelSpec) -> float:
    """The part of a GPU's memory that vLLM may take."""
    given = number(model.engine_args.get("gpu-memory-utilization"))
    return given if given is not None and 0 < given <= 1 else UTILIZATION


def number(value: Any) -> float | None:
    """A finite number, also one in text."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and abs(found) < 1e15 else None


def switched_on(model: ModelSpec, flag: str) -> bool:
    """Whether a flag without a value is given."""
    given = str(model.engine_args.get(flag)).casefold()
    return flag in model.action_args or given in ("true", "yes", "on")


def _loaded_share(config: Mapping[str, Any], model: ModelSpec) -> float:
    """What of the files' size arrives on GPUs: 32-bit weights become 16-bit ones, others are quantized on the way."""
    asked = model.engine_args.get("quantization")
    if isinstance(config.get("quantization_config"), Mapping):
        return 1.0
    stored = str(config.get("dtype") or config.get("torch_dtype") or text_config(config).get("dtype"))
    share = 0.5 if "float32" in stored and model.engine_args.get("dtype") not in ("float32", "float") else 1.0
    return share * (QUANTIZED.get(str(asked), 0.25) if asked else 1.0)


def _token_bytes(config: Mapping[str, Any], model: ModelSpec) -> float:
    """The KV cache of one token on one GPU; 0 where the configuration doesn't tell it."""
    text = text_config(config)
    depth, many, keys = _full_layers(config), heads(config), kv_heads(config)
    if depth is None:
        return 0.0
    tensor, pipeline = max(1, model.parallel("tensor")), max(1, model.parallel("pipeline"))
    per_stage = depth / pipeline
    share = max(1.0, number(model.engine_args.get("decode-context-parallel-size")) or 1.0)
    width = _cache_width(config, model)
    if (rank := whole(text, "kv_lora_rank")) is not None:  # multi-head latent attention keeps one vector for all heads
        return per_stage * (rank + (whole(text, "qk_rope_head_dim") or 0)) * width / share
    hidden = whole(text, "hidden_size", "n_embd", "d_model")
    head = whole(text, "head_dim") or (hidden // many if hidden and many else None)
    if keys is None or head is None:
        return 0.0
    return 2 * per_stage * max(1, keys // tensor) * head * width / share


def _full_layers(config: Mapping[str, Any]) -> int | None:
    """Layers that keep every token."""
    text = text_config(config)
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return sum(kind == "full_attention" for kind in kinds) or None
    windowed = whole(text, "sliding_window") is not None and text.get("use_sliding_window") is not False
    partly = any(key in text for key in ("full_attention_interval", "attn_layer_period", "hybrid_override_pattern",
                                         "layers_block_type", "attn_type_list", "block_types"))  # fmt: skip
    return None if windowed or partly else layers(config)


def _cache_width(config: Mapping[str, Any], model: ModelSpec) -> int:
    asked = str(model.engine_args.get("kv-cache-dtype") or "auto")
    quantization = config.get("quantization_config")
    stored = isinstance(quantization, Mapping) and quantization.get("kv_cache_scheme")
    if asked != "auto":
        return 2 if asked in ("bfloat16", "float16") else 1
    return 1 if stored else 4 if model.engine_args.get("dtype") in ("float32", "float") else 2
