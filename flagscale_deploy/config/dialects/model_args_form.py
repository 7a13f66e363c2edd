"""The first form (from December 2024): `model_args.<model>: {model-tag, <flags>, action-args}`."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.config.dialects.model import (
    SIZES,
    Entry,
    read_flags,
    take_model,
    take_port,
    take_secrets,
)
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.value import Value


def read(model_args: Value, path: Path) -> Checked[list[Entry]]:
    """Return the models of `model_args`, in its order."""
    faults = KeyFaults()
    if not isinstance(model_args, dict) or not model_args:
        faults.add(path, "has no models", "expected model_args: {vllm_model: {model-tag: …}}")
        return [], faults
    entries = [faults.take(read_model(name, args, (*path, name))) for name, args in model_args.items()]
    return [entry for entry in entries if entry is not None], faults


def read_model(name: str, args: Value, path: Path) -> Checked[Entry | None]:
    """Return one model; None if it is not a mapping."""
    faults = KeyFaults()
    if not isinstance(args, dict):
        faults.add(path, "is not a mapping", "expected model-tag: and flags of vLLM")
        return None, faults
    flags = faults.take(read_flags(args, path))
    where = (*path, "action-args")
    actions = faults.take(_read_actions(flags.pop("action-args", None), where))
    faults += _contradictions(actions, flags, where)
    model = faults.take(take_model(flags, ("model-tag", "model"), path))
    port = faults.take(take_port(flags, path))
    secret_env = faults.take(take_secrets(flags, path))
    return Entry(name, model, path, flags, actions, port, secret_env), faults


def _read_actions(actions: Value, path: Path) -> Checked[tuple[str, ...]]:
    """Return the flags without a value, or with one behind `=`; `null` and an empty list are none."""
    faults = KeyFaults()
    if actions is None:
        return (), faults
    words = [action for action in actions if isinstance(action, str)] if isinstance(actions, list) else []
    if not isinstance(actions, list) or len(words) < len(actions) or not all(map(_is_action, words)):
        faults.add(path, "is not a list of flags", "as in action-args: [trust-remote-code, enable-chunked-prefill]")
        return (), faults
    flags = []
    for word in words:
        key, equals, value = word.strip().partition("=")
        name, *more = key.split()
        flag = flag_name(name)
        if is_secret_name(flag.removeprefix("no-")):  # what follows may be its value
            faults.add(path, f"holds the secret {flag}", f"write it as a flag: {flag}: …")
            return (), faults
        if more or (equals and flag in (*SIZES, "port", "model")):
            # Its value is not shown: it may be a secret.
            faults.add(path, f"{flag} has a value", f"write it as a flag of the model: {flag}: …")
        else:
            flags.append(flag + equals + value)
    return tuple(flags), faults


def _is_action(action: str) -> bool:
    return action.partition("=")[0].replace("-", " ").strip() != ""


def _contradictions(actions: tuple[str, ...], flags: Mapping[str, Value], path: Path) -> KeyFaults:
    """Return faults for actions that are flags, too, of another value: vLLM would use the last without a word."""
    faults = KeyFaults()
    for action in actions:
        name, equals, _ = action.partition("=")
        positive = name.removeprefix("no-")
        enabled = str(flags.get(positive, flags.get(name, positive == name))).lower() in ("true", "yes", "on")
        if (name in flags or positive in flags) and (equals or enabled != (positive == name)):
            faults.add(path, f"{name} is set as a flag, too: {positive}", "keep one of the two")
    return faults
