"""Calculate whether weights and the KV cache of one sequence fit on a GPU, as a lower bound.

vLLM 0.32 takes `gpu-memory-utilization` (0.92) of a GPU for everything, and refuses to start when what the weights
leave can't hold one sequence of max-model-len (`kv_cache_utils.py`: "To serve at least one request …"). Activations
and CUDA's own memory are counted low, and layers that don't cache every token are left out: a model that is reported
not to fit does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagscale_deploy.checks.model_numbers import heads, kv_heads, layers, text_config, whole
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.support.units import GIB, KIB, counted, format_size

UTILIZATION = 0.92
OVERHEAD = GIB // 2
PREFERRED = (".safetensors", ".bin", ".pt", ".gguf")
QUANTIZED = {"fp8": 0.5, "experts_int8": 0.5, "bitsandbytes": 0.25}
"""The share of 16-bit weights that is left after quantization while loading."""


@dataclass(frozen=True)
class Need:
    """What one GPU has to hold, in bytes; `token` is the cache of one token, `length` the tokens of one sequence."""

    files: float
    ranks: int
    token: float
    length: int

    @property
    def weights(self) -> float:
        """Return the bytes of weights on one GPU."""
        return self.files / self.ranks

    @property
    def total(self) -> float:
        """Return all bytes that one GPU has to hold."""
        return self.weights + self.token * self.length + OVERHEAD

    def calculation(self, memory: int, utilization: float) -> str:
        """Return the calculation as text, for a GPU with so many bytes."""
        cache = self.token * self.length
        return (
            f"weights {format_size(self.files)} / {self.ranks} = {format_size(self.weights)}, "
            f"KV cache {counted(self.length, 'token')} × {self.token / KIB:.1f} KiB = {format_size(cache)}, "
            f"{format_size(OVERHEAD)} for CUDA: {format_size(self.total)} of "
            f"{format_size(memory)} × {utilization:g} = {format_size(memory * utilization)}"
        )

    def longest(self, memory: float) -> int:
        """Return the longest sequence that would fit, in tokens."""
        left = memory - self.weights - OVERHEAD
        return int(left / self.token) if left > 0 and self.token > 0 else 0


def need(files: ModelFiles, model: ModelSpec, length: int | None) -> Need | None:
    """Return what a GPU has to hold, None if the sizes of the files are unknown; `length` None means one token.

    For incomplete files, the size in their index counts.
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
    """Return descriptions of missing, empty or torn files, each beginning with the file's name; [] if all are complete.

    Safetensors files state their own size. For other formats, the total size in the index is the only measure; an index
    may be wrong if weights were converted.
    """
    missing = [f"{name} is missing" for name in files.indexed if name not in files.weights]
    empty = [f"{name} is empty" for name, bytes_ in files.weights.items() if bytes_ == 0]
    loaded = files.indexed or files.weights
    broken = [f"{name} {problem}" for name, problem in files.torn.items() if name in loaded]
    if problems := [*missing, *empty, *broken]:
        return problems
    if not files.weights:
        return ["no weight files"]
    opaque = any(not name.endswith(".safetensors") for name in files.indexed)
    bytes_ = weight_bytes(files)
    if opaque and files.total is not None and bytes_ < files.total:
        return [f"its files have {bytes_} of {files.total} bytes"]
    return []


def weight_bytes(files: ModelFiles) -> int:
    """Return the size of the files that vLLM loads: those of the index, else of the first format that exists."""
    sizes = {name: size for name, size in files.weights.items() if isinstance(size, int) and size >= 0}
    if indexed := [sizes[name] for name in files.indexed if name in sizes]:
        return sum(indexed)
    for suffix in PREFERRED:
        of_format = [size for name, size in sizes.items()
                     if name.endswith(suffix) and not name.startswith("consolidated")]  # fmt: skip
        if of_format:
            return sum(of_format)
    return sum(sizes.values())


def utilization(model: ModelSpec) -> float:
    """Return the share of a GPU's memory that vLLM may take."""
    configured = number(model.engine_args.get("gpu-memory-utilization"))
    return configured if configured is not None and 0 < configured <= 1 else UTILIZATION


def number(value: Any) -> float | None:
    """Return a finite number, also from text; None if it is none."""
    try:
        result = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None
    return result if result is not None and abs(result) < 1e15 else None


def switched_on(model: ModelSpec, flag: str) -> bool:
    """Return whether a flag without a value is set."""
    value = str(model.engine_args.get(flag)).casefold()
    return flag in model.action_args or value in ("true", "yes", "on")


def _loaded_share(config: Mapping[str, object], model: ModelSpec) -> float:
    """Return the share of the files' size that arrives on GPUs: 32-bit weights become 16-bit, or are quantized."""
    quantization = model.engine_args.get("quantization")
    if isinstance(config.get("quantization_config"), Mapping):
        return 1.0
    stored = str(config.get("dtype") or config.get("torch_dtype") or text_config(config).get("dtype"))
    share = 0.5 if "float32" in stored and model.engine_args.get("dtype") not in ("float32", "float") else 1.0
    return share * (QUANTIZED.get(str(quantization), 0.25) if quantization else 1.0)


def _token_bytes(config: Mapping[str, object], model: ModelSpec) -> float:
    """Return the KV cache of one token on one GPU, in bytes; 0 if the configuration doesn't tell it."""
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


def _full_layers(config: Mapping[str, object]) -> int | None:
    """Return the number of layers that keep every token; None if unknown."""
    text = text_config(config)
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return sum(kind == "full_attention" for kind in kinds) or None
    windowed = whole(text, "sliding_window") is not None and text.get("use_sliding_window") is not False
    partly = any(key in text for key in ("full_attention_interval", "attn_layer_period", "hybrid_override_pattern",
                                         "layers_block_type", "attn_type_list", "block_types"))  # fmt: skip
    return None if windowed or partly else layers(config)


def _cache_width(config: Mapping[str, object], model: ModelSpec) -> int:
    dtype = str(model.engine_args.get("kv-cache-dtype") or "auto")
    quantization = config.get("quantization_config")
    stored = isinstance(quantization, Mapping) and quantization.get("kv_cache_scheme")
    if dtype != "auto":
        return 2 if dtype in ("bfloat16", "float16") else 1
    return 1 if stored else 4 if model.engine_args.get("dtype") in ("float32", "float") else 2
