"""The later form (from March 2025): `- {serve_id, engine, engine_args, engine_args_specific, resources}`."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.dialects.model import Entry, flag_name, read_flags, take_model, take_port, take_secrets
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.support.suggest import suggest

KEYS = ("serve_id", "engine", "engine_args", "engine_args_specific", "resources", "profile")


def read(entries: list[Any], path: Path, findings: Findings) -> list[Entry]:
    """The models of the list, in its order."""
    if not entries:
        findings.add(
            path, "holds no models", "expected - {serve_id: vllm_model, engine: vllm, engine_args: {model: …}}"
        )
    found: dict[str, Entry] = {}
    for index, item in enumerate(entries):
        entry = _read_entry(item, (*path, str(index)), findings)
        if entry is not None and entry.name in found:
            findings.add(
                entry.path,
                f"the serve_id {entry.name} is taken by an entry before",
                "give each entry a serve_id of its own",
            )
        elif entry is not None:
            found[entry.name] = entry
    return list(found.values())


def _read_entry(item: Any, path: Path, findings: Findings) -> Entry | None:
    if not isinstance(item, dict):
        findings.add(path, "is no mapping", f"expected {', '.join(KEYS)}")
        return None
    item = {key.replace("-", "_"): value for key, value in item.items()}
    for key in item.keys() - set(_KEYS):
        findings.add((*path, key), "unknown key", suggest(key, _KEYS))
    engine = item.get("engine") or "vllm"
    if engine != "vllm":
        findings.add(
            (*path, "engine"), f"{engine!r} is not run here", "set engine: vllm, or run it with FlagScale itself"
        )
        return None
    path_of_args = (*path, "engine_args")
    flags = read_flags(_merged_args(item, path, findings), path_of_args, findings)
    model = take_model(flags, ("model",), path_of_args, findings)
    port = take_port(flags, path_of_args, findings)
    secret_env = take_secrets(flags, path_of_args, findings)
    options = read_settings(ModelOptions, item.get("resources"), (*path, "resources"), findings)
    return Entry(_name(item, path, findings), model, path, flags, (), port, secret_env, options)


def _merged_args(item: dict[str, Any], path: Path, findings: Findings) -> dict[str, Any]:
    """`engine_args` over `engine_args_specific.vllm`, whatever their spelling; other engines' are not ours."""
    general = _mapping(item, "engine_args", path, findings)
    every = _mapping(item, "engine_args_specific", path, findings)
    specific = _mapping(every, "vllm", (*path, "engine_args_specific"), findings)
    named = {flag_name(key) for key in general}
    return {**general, **{key: value for key, value in specific.items() if flag_name(key) not in named}}


def _mapping(item: dict[str, Any], key: str, path: Path, findings: Findings) -> dict[str, Any]:
    value = item.get(key)
    if value is not None and not isinstance(value, dict):
        findings.add((*path, key), "is no mapping", "expected flags of vLLM")
    return value if isinstance(value, dict) else {}


def _name(item: dict[str, Any], path: Path, findings: Findings) -> str:
    name = item.get("serve_id")
    if name is None:
        findings.add(path, "has no serve_id", "add serve_id: vllm_model")
    return str(name)
