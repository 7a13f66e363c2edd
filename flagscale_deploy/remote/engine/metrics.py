"""Read an engine's own figures from vLLM's GET /metrics (Prometheus text; names of vLLM 0.6 to 0.32)."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from flagscale_deploy.remote.engine.client import Client

SECONDS = 5.0
LONGEST_LINE = 4096
_LINE = re.compile(r"(vllm:\w+)(?:\{(.*)\})? ([-+]?[\d.]+(?:[eE][-+]?\d+)?)$")
_ENGINE = re.compile(r'(?:^|,)engine="(\d{1,6})"')
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


WORK = ("vllm:num_requests_running", "vllm:num_requests_waiting")
TOKENS = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total")
"""What moves with each step of an engine."""
SLEEP, AWAKE = "vllm:engine_sleep_state", 'sleep_state="awake"'


class Sample(NamedTuple):
    """What one engine has to do, and how far its counters of tokens have come."""

    running: float
    waiting: float
    tokens: Tuple[float, ...]
    awake: bool = True
    """Whether it was not put to sleep (vLLM's sleep mode)."""


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
    for name, _, figure in _figures(text):
        if name in _FIGURES:
            figures.setdefault(name, []).append(figure)
    named = ((_FIGURES[name][0], _FIGURES[name][1](values)) for name, values in figures.items())
    return {name: figure for name, figure in named if math.isfinite(figure)} or None


def engines(text: str) -> Dict[str, Sample]:
    """Return the engines that count tokens in a page of metrics, by their numbers; "" is one that has none."""
    counted: Dict[str, Dict[str, float]] = {}
    for name, labels, figure in _figures(text):
        if name in WORK or name in TOKENS or (name == SLEEP and AWAKE in labels):
            match = _ENGINE.search(labels)
            own = counted.setdefault(match.group(1) if match else "", {})
            own[name] = own.get(name, 0.0) + figure
    return {
        engine: Sample(
            own.get(WORK[0], 0.0),
            own.get(WORK[1], 0.0),
            tuple(own.get(name, 0.0) for name in TOKENS),
            bool(own.get(SLEEP, 1.0)),
        )
        for engine, own in counted.items()
        if not own.keys().isdisjoint(TOKENS)
    }


def _figures(text: str) -> Iterator[Tuple[str, str, float]]:
    """Yield vLLM's finite figures: name, labels, value."""
    for line in text.splitlines():
        match = _LINE.match(line[:LONGEST_LINE])
        if match is not None:
            with contextlib.suppress(ValueError):
                figure = float(match.group(3))
                if math.isfinite(figure):
                    yield match.group(1), match.group(2) or "", figure
