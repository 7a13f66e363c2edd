"""Read an engine's own figures from vLLM's GET /metrics (Prometheus text; names of vLLM 0.6 to 0.32)."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from flagscale_deploy.remote.engine.client import Client

SECONDS = 5.0
LONGEST_LINE = 4096
_LINE = re.compile(r"(vllm:\w+)(?:\{.*\})? ([-+]?[\d.]+(?:[eE][-+]?\d+)?)$")
_FIGURES: Dict[str, Tuple[str, Callable[[Iterable[float]], float]]] = {
    "vllm:num_requests_running": ("running", sum),
    "vllm:num_requests_waiting": ("waiting", sum),
    "vllm:kv_cache_usage_perc": ("kv_cache", max),
    "vllm:gpu_cache_usage_perc": ("kv_cache", max),
    "vllm:prompt_tokens_total": ("prompt_tokens", sum),
    "vllm:generation_tokens_total": ("generation_tokens", sum),
    "vllm:num_preemptions_total": ("preemptions", sum),
    "vllm:request_success_total": ("finished", sum),
    "vllm:nixl_bytes_transferred_sum": ("kv_received", sum),
}
"""By vLLM's name: ours, and what several engines of a server come to. `kv_cache` is the part that is used, 0 to 1.
`kv_received` are the bytes of KV cache that it fetched from other
engines."""


def ask(client: Client, url: str) -> Optional[Dict[str, float]]:
    """Return the figures of a server; None where it has none, or does not answer."""
    try:
        status, text = client.request(url + "/metrics", timeout=SECONDS)
    except (OSError, ValueError):
        return None
    return parse(text) if status == 200 else None


def parse(text: str) -> Optional[Dict[str, float]]:
    """Parse a page of metrics; None where none of them is vLLM's. A figure that is not finite is left out."""
    figures: Dict[str, List[float]] = {}
    for line in text.splitlines():
        match = _LINE.match(line[:LONGEST_LINE])
        if match is not None and match.group(1) in _FIGURES:
            with contextlib.suppress(ValueError):
                figure = float(match.group(2))
                figures.setdefault(match.group(1), []).extend([figure] if math.isfinite(figure) else [])
    named = ((_FIGURES[name][0], _FIGURES[name][1](values)) for name, values in figures.items() if values)
    return {name: figure for name, figure in named if math.isfinite(figure)} or None
