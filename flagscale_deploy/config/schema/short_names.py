"""Flags that vLLM 0.32 knows with a single dash, too (`-tp`).

Source: the parser that `vllm serve` builds, read out by `tests/e2e/test_vllm_parser.py`, as are `plan/vllm_flags.py`'s.
"""

from __future__ import annotations

from typing import Final

SHORT_NAMES: Final = {
    "ac": "attention-config",
    "asc": "api-server-count",
    "cc": "compilation-config",
    "dc": "diffusion-config",
    "dcp": "decode-context-parallel-size",
    "dp": "data-parallel-size",
    "dpa": "data-parallel-address",
    "dpb": "data-parallel-backend",
    "dpe": "data-parallel-external-lb",
    "dph": "data-parallel-hybrid-lb",
    "dpl": "data-parallel-size-local",
    "dpm": "data-parallel-multi-port-external-lb",
    "dpn": "data-parallel-rank",
    "dpp": "data-parallel-rpc-port",
    "dpr": "data-parallel-start-rank",
    "ep": "enable-expert-parallel",
    "n": "nnodes",
    "pcp": "prefill-context-parallel-size",
    "pp": "pipeline-parallel-size",
    "q": "quantization",
    "r": "node-rank",
    "sc": "speculative-config",
    "tp": "tensor-parallel-size",
}


def flag_name(key: str) -> str:
    """Return `--max_model_len` as `max-model-len`, `tp` as `tensor-parallel-size`; what follows a dot is kept."""
    head, dot, field_name = key.strip().lstrip("-").partition(".")
    head = head.replace("_", "-")
    return SHORT_NAMES.get(head, head) + dot + field_name
