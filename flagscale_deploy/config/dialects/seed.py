"""The first form (from December 2024): `model_args.<model>: {model-tag, <flags>, action-args}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscale_deploy.config.dialects.model import (
    SIZES,
    Entry,
    flag_name,
    read_flags,
    take_model,
    take_port,
    take_secrets,
)
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.secrets import is_secret_name


def read(model_args: Any, path: Path, findings: Findings) -> list[Entry]:
    """The models of `model_args`, in its order."""
    if not isinstance(model_args, dict) or not model_args:
        findings.add(path, "holds no models", "expected model_args: {vllm_model: {model-tag: …}}")
        return []
    return [
        entry
        for name, args in model_args.items()
        if (entry := read_model(name, args, (*path, name), findings)) is not None
    ]


def read_model(name: str, args: Any, path: Path, findings: Findings) -> Entry | None:
    """One model; None where there is no mapping."""
    if not isinstance(args, dict):
        findings.add(path, "is no mapping", "expected model-tag: and flags of vLLM")
        return None
    flags = read_flags(args, path, findings)
    where = (*path, "action-args")
    actions = _read_actions(flags.pop("action-args", None), where, findings)
    _refuse_contradictions(actions, flags, where, findings)
    model = take_model(flags, ("model-tag", "model"), path, findings)
    port = take_port(flags, path, findings)
    secret_env = take_secrets(flags, path, findings)
    for action in actions:
        flag, equals, _ = action.partition("=")
        if equals and is_secret_name(flag):
            findings.add((*path, "action-args"), f"holds the secret {flag}", f"write it as a flag: {flag}: …")
    return Entry(name, model, path, flags, actions, port, secret_env)


def _read_actions(actions: Any, path: Path, findings: Findings) -> tuple[str, ...]:
    """The flags without a value, or with one behind `=`; `null` and an empty list are none."""
    if actions is None:
        return ()
    if not isinstance(actions, list) or not all(map(_is_action, actions)):
        findings.add(path, "is no list of flags", "as in action-args: [trust-remote-code, enable-chunked-prefill]")
        return ()
    read = []
    for action in actions:
        written, equals, value = action.strip().partition("=")
        name, *more = written.split()
        flag = flag_name(name)
        if more or (equals and flag in (*SIZES, "port", "model")):
            # Its value is not shown: it may be a secret.
            findings.add(path, f"{flag} has a value", f"write it as a flag of the model: {flag}: …")
        else:
            read.append(flag + equals + value)
    return tuple(read)


def _is_action(action: Any) -> bool:
    return isinstance(action, str) and action.partition("=")[0].replace("-", " ").strip() != ""


def _refuse_contradictions(actions: tuple[str, ...], flags: Mapping[str, Any], path: Path, findings: Findings) -> None:
    """An action is its flag set to true; vLLM would silently heed the last."""
    for action in actions:
        name, equals, _ = action.partition("=")
        plain = name.removeprefix("no-")
        asked = str(flags.get(plain, flags.get(name, plain == name))).lower() in ("true", "yes", "on")
        if (name in flags or plain in flags) and (equals or asked != (plain == name)):
            findings.add(path, f"{name} is set as a flag, too: {plain}", "keep one of the two")
