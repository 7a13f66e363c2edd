"""Refuse what a recipe has no reason for: other code than vLLM's and the model's, files of a host, other servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.vllm_flags import KNOWN
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Value

OTHER = "correct the recipe, or name another strategy"
FLAGS = frozenset(
    """
    api-key code-revision config default-mm-loras download-dir hf-config-path hf-token host io-processor-plugin
    kv-events-config log-config-file logging-config lora-modules middleware model otlp-traces-endpoint revision
    root-path scheduler-cls spec-model ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile tokenizer
    tokenizer-revision tool-server uds worker-cls worker-extension-cls
    """.split()  # noqa: SIM905 (one name a line would hide the rest)
)
"""Flags for secrets of others, another model or code, files and addresses of a host, and whom prompts are sent to."""
FILES = frozenset({"chat-template", "reasoning-parser-plugin", "tool-call-parser-plugin", "tool-parser-plugin"})
"""Flags that name a file beside the place where vLLM is started."""
_FAMILIES = re.compile(
    r"(?:VLLM|NCCL|RCCL|GLOO|CUDA|HIP|HSA|ROCM|AITER|AMDGCN|MIOPEN|TORCH|PYTORCH|TRITON|FLASHINFER|DG|SAFETENSORS"
    r"|TOKENIZERS|OMP|MKL|UCX|NIXL)_[A-Z0-9_]{1,99}|PYTHON(?:NOUSERSITE|HASHSEED|UNBUFFERED)"
)
"""Variables of vLLM and of its libraries."""
_DECISIVE = re.compile(
    r"PLUGIN|INSECURE|DEV_MODE|RUNTIME|MODELSCOPE|INJECTION|TOOL|PATH|ENDPOINT|SERVER|COMM_ID|(?<!PRO)FILE"
    r"|_DIR(?![A-Z])|MANAGER|REMOTE"
)
"""Parts of names by which other code is loaded, protection is taken away, a file is written, or somebody else asked."""
_WORDS = re.compile(r"[A-Za-z0-9_:,;=+.-]*")
_NUMBER = re.compile(r"-?\d{1,20}\.\d{1,20}")
_CODE = re.compile(r"[A-Za-z_]\w{0,200}(?:[.:][A-Za-z_]\w{0,200})+", re.ASCII)
"""How Python's code is named: `package.module:Class`."""
_SERVER_KEY = re.compile(
    r"(?:^|[._-])(?:ip|addr|(?:host|host_?name|address|ur[il]|server|endpoint|broker|proxy)e?s?)$", re.I
)
"""The end of a key whose value names a server, as `kv_ip` and `master_server_address`."""
_PORT = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.%]{2,60}\]):\d{1,5}")
_HIDDEN = re.compile(r"\.(?:\.$|[^.\d])")
"""A part of a path that leads up, or to a hidden file: vLLM is started in the home directory."""


def refuse_variable(name: str, text: str, place: str) -> None:
    """Raise InputError for a variable that is not vLLM's or its libraries', and for a value that names a place."""
    if not _FAMILIES.fullmatch(name) or _DECISIVE.search(name):
        raise InputError.at(place, f"found {quoted(name)}, expected a variable of vLLM or its libraries", OTHER)
    parts = re.split("[:,;=]", text)
    places = any("." in part and not _NUMBER.fullmatch(part) for part in parts)
    code = _CODE.fullmatch(text) and not name.endswith("_CONF")  # PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
    if not _WORDS.fullmatch(text) or places or code:
        raise InputError.at(place, f"found {quoted(text)}, expected numbers and words, no path and no address", OTHER)


def refuse_placeholder(text: str, where: str) -> None:
    """Raise InputError for a text that refers to a variable of a host or of the operator."""
    if "$" in text:
        problem = f"found {quoted(text)}, expected no placeholder there"
        raise InputError.at(where, problem, "this tool fills in none of that name: correct the recipe")


def refuse_flag(flag: str, place: str) -> None:
    """Raise InputError for one of FLAGS, also by its beginning: vLLM takes that for the flag."""
    name = flag.partition(".")[0]
    if name in FLAGS or (name not in KNOWN and any(refused.startswith(name) for refused in FLAGS)):
        raise InputError.at(place, f"found --{flag}, expected no such flag in a recipe", OTHER)


def refuse_value(flag: str, value: Value, place: str) -> None:
    """Raise InputError for a value that names code of others, a server, or a place of the host."""
    parts = flag.replace("-", "_").split(".")
    for key, text in _texts(flag, value):
        refuse_placeholder(text, place)  # JSON may have escaped it
        outside = "://" in text or text.startswith(("/", "~")) or any(map(_HIDDEN.match, text.split("/")))
        code = _CODE.fullmatch(text) and not text.startswith("vllm.") and flag not in FILES
        # Transformers takes what stands below `auto_map`, and behind `ORG/REPO--`, for code, whatever its name is.
        if key.endswith(("module_path", "module-path")) or code or "--" in text or "auto_map" in (text, *parts):
            raise InputError.at(place, f"found {quoted(text)}, expected no code but vLLM's", OTHER)
        if _names_server(key, text):
            raise InputError.at(place, f"found {quoted(text)}, expected no place of a host or of the network", OTHER)
        if outside and (flag, text) != ("allowed-local-media-path", "/"):
            raise InputError.at(place, f"found {quoted(text)}, expected no place of a host or of the network", OTHER)


def _names_server(key: str, text: str) -> bool:
    """Return whether a text under a key is an address, or stands where an address does."""
    if text != key and _SERVER_KEY.search(key):
        return True
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return _PORT.fullmatch(text) is not None
    return True


def _texts(key: str, value: Value) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name, name
            yield from _texts(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(key, inner)
