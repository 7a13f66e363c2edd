"""Recognise what a file is that somebody took for an inventory or for a serve YAML, and say how it is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from flagscale_deploy.errors import InputError

_HOSTS = "write the hosts as YAML: `hosts: [gpu01, gpu02]`"
_MODEL = "write the model and its flags as YAML: `model_args: {vllm_model: {model: …, port: …}}`"


class FileKind(Enum):
    """What a file is; what to do where it was given as an inventory, and where as a serve YAML."""

    SERVE = "a serve YAML", "-i and -c are swapped: give this file with -c, and the hosts with -i", ""
    INVENTORY = "an inventory", "", "-i and -c are swapped: give this file with -i, and a serve YAML with -c"
    VLLM = "a file for vLLM's --config", _HOSTS, "put its lines below `model_args: {vllm_model: …}`; flags are the same"
    COMPOSE = "a compose file", _HOSTS, _MODEL
    TOML = "TOML", _HOSTS, _MODEL
    PLAYBOOK = "a playbook of Ansible", "give the inventory that it runs on", _MODEL
    KUBERNETES = "a manifest of Kubernetes", _HOSTS, _MODEL
    RAY = "a cluster file of Ray", _HOSTS, _MODEL


_SERVE_ROOTS = frozenset(("deploy", "experiment", "llm", "model_args", "serve", "vllm"))
_GROUP = frozenset(("hosts", "children", "vars"))
_SHORT = frozenset(("hosts", "defaults", "groups"))
_FLAGS = frozenset((
    *("dtype", "gpu_memory_utilization", "max_model_len", "max_num_seqs", "pipeline_parallel_size", "quantization"),
    *("served_model_name", "tensor_parallel_size", "uvicorn_log_level", "data_parallel_size", "trust_remote_code"),
))  # fmt: skip
_TOML_LINE = re.compile(r"^[ \t]*[\w.\"-]+ = (?:[\"'\[{]|(?:true|false|\d[\d_.]*)[ \t]*$)", re.MULTILINE)
_OF_HOSTS = re.compile(
    r"^\[[\w.-]+(?::(?:vars|children))?\][ \t]*$|^[^\s#:]\S*[ \t][^#\n]*(?:\bansible_\w+=|\bslots\s*=\s*\d)",
    re.MULTILINE,
)


def kind_of_text(text: str, source: str) -> FileKind | None:
    """Return what a text is that is no YAML."""
    if source.endswith(".toml") or (_TOML_LINE.search(text) and ":vars]" not in text):
        return FileKind.TOML
    return FileKind.INVENTORY if _OF_HOSTS.search(text) else None


def kind_of_document(document: object) -> FileKind | None:
    """Return what a YAML document is, as far as its keys tell."""
    if isinstance(document, list):
        return _of_entries(document)
    if not isinstance(document, Mapping):
        return None
    keys = {str(key).replace("-", "_") for key in document}
    if keys == {"serve"} and isinstance(document["serve"], list):
        return _of_entries(document["serve"]) or FileKind.SERVE
    if _is_inventory(document):
        return FileKind.INVENTORY
    if keys & _SERVE_ROOTS or isinstance(document.get("defaults"), list):
        return FileKind.SERVE
    return _of_other_tools(document, keys)


def refuse_other_kind(kind: FileKind | None, wanted: FileKind, source: str) -> None:
    """Raise InputError where a file is known to be something else than what is wanted."""
    if kind is None or kind is wanted:
        return
    name, for_inventory, for_config = kind.value
    remedy = for_inventory if wanted is FileKind.INVENTORY else for_config
    raise InputError.at(source, f"is {name}, not {wanted.value[0]}", remedy)


def _of_entries(entries: list[object]) -> FileKind | None:
    keys = {str(key) for entry in entries if isinstance(entry, Mapping) for key in entry}
    if "serve_id" in keys:
        return FileKind.SERVE
    return FileKind.PLAYBOOK if "hosts" in keys and keys & {"tasks", "roles"} else None


def _is_inventory(document: Mapping[object, object]) -> bool:
    if document.keys() <= _SHORT and isinstance(document.get("hosts"), list):
        return True
    groups = [group for group in document.values() if group is not None]
    return bool(groups) and all(isinstance(group, Mapping) and group and group.keys() <= _GROUP for group in groups)


def _of_other_tools(document: Mapping[object, object], keys: set[str]) -> FileKind | None:
    services = document.get("services")
    if isinstance(services, Mapping) and any(
        isinstance(service, Mapping) and service.keys() & {"image", "build", "command"} for service in services.values()
    ):
        return FileKind.COMPOSE
    if keys >= {"apiVersion", "kind"}:
        return FileKind.KUBERNETES
    if keys >= {"cluster_name", "provider"}:
        return FileKind.RAY
    is_vllm = any(isinstance(document.get(key), str) for key in ("model", "model-tag", "model_tag"))
    return FileKind.VLLM if is_vllm or len(keys & _FLAGS) > 1 else None
