"""Which paths pass: those of an allow-list that are written in their one normal form, and never an admin endpoint.

A path is forwarded as the bytes that were judged, so there is no second form that another server could read in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

PLAIN = re.compile(r"(?:/[A-Za-z0-9_~@:.-]+)+", re.ASCII)
"""A path without percent-encoding, empty segments, backslash, `;`, NUL, or what else servers may read differently."""
QUERY = re.compile(r"[!$-~]*", re.ASCII)
"""Printable ASCII without blanks, quotation marks and `#`."""
LONGEST_PATH = 512
MODELS = "/v1/models"
ADMIN = frozenset(
    """
    abort_requests add_worker apply collective_rpc fault_tolerance finish_weight_update flush_cache get_loads
    get_server_info get_world_size init_weight_transfer_engine invocations is_paused is_scaling_elastic_ep is_sleeping
    kv_event_sources list_workers load load_lora_adapter metrics pause release_kv_cache_memory
    remove_worker reset_encoder_cache reset_mm_cache reset_prefix_cache resume resume_memory_occupation
    scale_elastic_ep server_info shutdown shutdown_weight_transfer_engine sleep start_draft_weight_update start_profile
    start_weight_update stop_profile unload_lora_adapter update_weight_version update_weights wake_up weight_checker
    weight_info workers
    """.split()  # noqa: SIM905 (one name a line would fill a page)
)
"""Names of endpoints of vLLM 0.32 and vllm-router 0.1.17 that change or tell of the server; none is a client's.

A path with one of them as a segment is refused, whatever the allow-list says. Only `/v1/models/NAME`, which the gate
answers by itself, may have any.
"""


@dataclass(frozen=True)
class Target:
    """A request target that passes: `path` as it is forwarded, `query` with its `?`, or empty."""

    path: str
    query: str = ""
    model: str | None = None
    """The NAME of `/v1/models/NAME`, decoded."""


class PathError(Exception):
    """A request target that is not forwarded. `normal`: it is in normal form, and not in the allow-list."""

    def __init__(self, message: str, *, normal: bool) -> None:
        super().__init__(message)
        self.normal = normal


def judge(raw: str, allowed: Sequence[str]) -> Target:
    """Return what a raw request target asks for; raise PathError where it does not pass."""
    path, mark, query = raw.partition("?")
    if not QUERY.fullmatch(query):
        raise PathError("the query has characters that have to be percent-encoded", normal=False)
    if path.startswith(f"{MODELS}/") and "%" in path:
        return _model(path, allowed)
    if len(path) > LONGEST_PATH or not PLAIN.fullmatch(path):
        raise PathError("the path is not in normal form: / and plain segments, without percent-encoding", normal=False)
    segments = path.split("/")[1:]
    if any(not segment.strip(".") for segment in segments):
        raise PathError("the path has segments of dots", normal=False)
    if not permits(allowed, path):
        raise PathError("no such endpoint", normal=True)
    if path.startswith(f"{MODELS}/"):
        return Target(path, model=path[len(MODELS) + 1 :])
    if ADMIN.intersection(segment.lower() for segment in segments):
        raise PathError("no such endpoint", normal=True)
    return Target(path, mark + query)


def permits(allowed: Sequence[str], path: str) -> bool:
    """Return whether a list of paths (`/version`, `/v1/*`) has this one."""
    return any(path.startswith(pattern[:-1]) if pattern.endswith("/*") else path == pattern for pattern in allowed)


def _model(path: str, allowed: Sequence[str]) -> Target:
    """Return the target of `/v1/models/NAME` with a name that is percent-encoded: the gate answers it by itself."""
    name = path[len(MODELS) + 1 :]
    try:
        model = unquote_to_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise PathError("the name of the model is not UTF-8", normal=False) from error
    if not permits(allowed, MODELS + "/"):
        raise PathError("no such endpoint", normal=True)
    return Target(MODELS + "/", model=model)


def path_class(path: str, known_paths: frozenset[str]) -> str:
    """Return a name for log and metrics that no client makes up: the path if it is a usual one, else its folder."""
    return path if path in known_paths else f"/{path.split('/')[1]}/*" if path.startswith("/v1/") else "other"


USUAL = frozenset(
    """
    /classify /detokenize /health /pooling /rerank /score /tokenize /version
    /v1/audio/transcriptions /v1/audio/translations /v1/chat/completions /v1/completions /v1/embeddings /v1/messages
    /v1/messages/count_tokens /v1/models /v1/rerank /v1/responses /v1/score /v2/rerank
    """.split()  # noqa: SIM905 (as above)
)
