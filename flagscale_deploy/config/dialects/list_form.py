"""The later form (from March 2025): `- {serve_id, engine, engine_args, engine_args_specific, resources}`."""

from __future__ import annotations

from flagscale_deploy.config.dialects.model import Entry, read_flags, take_model, take_port, take_secrets
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.value import Tree, Value

KEYS = ("serve_id", "engine", "engine_args", "engine_args_specific", "resources", "profile")


def read(items: list[Value], path: Path) -> Checked[list[Entry]]:
    """Return the models of the list, in its order."""
    faults = KeyFaults()
    if not items:
        remedy = "expected - {serve_id: vllm_model, engine: vllm, engine_args: {model: …}}"
        faults.add(path, "has no models", remedy)
    entries: dict[str, Entry] = {}
    for index, item in enumerate(items):
        entry = faults.take(_read_entry(item, (*path, str(index))))
        if entry is not None and entry.name in entries:
            problem = f"the serve_id {entry.name} is already used by an earlier entry"
            faults.add(entry.path, problem, "give each entry a serve_id of its own")
        elif entry is not None:
            entries[entry.name] = entry
    return list(entries.values()), faults


def _read_entry(value: Value, path: Path) -> Checked[Entry | None]:
    faults = KeyFaults()
    if not isinstance(value, dict):
        faults.add(path, "is not a mapping", f"expected {', '.join(KEYS)}")
        return None, faults
    item = {key.replace("-", "_"): setting for key, setting in value.items()}
    for key in item.keys() - set(KEYS):
        faults.add((*path, key), "unknown key", suggest(key, KEYS))
    engine = item.get("engine") or "vllm"
    if engine != "vllm":
        remedy = "set engine: vllm, or run it with FlagScale itself"
        faults.add((*path, "engine"), f"{quoted(engine)} is not run here", remedy)
        return None, faults
    path_of_args = (*path, "engine_args")
    flags = faults.take(read_flags(faults.take(_merged_args(item, path)), path_of_args))
    model = faults.take(take_model(flags, ("model",), path_of_args))
    port = faults.take(take_port(flags, path_of_args))
    secret_env = faults.take(take_secrets(flags, path_of_args))
    options = faults.take(read_settings(ModelOptions, item.get("resources"), (*path, "resources")))
    if item.get("serve_id") is None:
        faults.add(path, "has no serve_id", "add serve_id: vllm_model")
    return Entry(str(item.get("serve_id")), model, path, flags, (), port, secret_env, options), faults


def _merged_args(item: Tree, path: Path) -> Checked[Tree]:
    """Return `engine_args` over `engine_args_specific.vllm`, whatever their spelling; other engines' are not used."""
    faults = KeyFaults()
    general = faults.take(_mapping(item, "engine_args", path))
    by_engine = faults.take(_mapping(item, "engine_args_specific", path))
    specific = faults.take(_mapping(by_engine, "vllm", (*path, "engine_args_specific")))
    names = {flag_name(key) for key in general}
    return {**general, **{key: value for key, value in specific.items() if flag_name(key) not in names}}, faults


def _mapping(item: Tree, key: str, path: Path) -> Checked[Tree]:
    faults = KeyFaults()
    value = item.get(key)
    if value is not None and not isinstance(value, dict):
        faults.add((*path, key), "is not a mapping", "expected flags of vLLM")
    return value if isinstance(value, dict) else {}, faults
