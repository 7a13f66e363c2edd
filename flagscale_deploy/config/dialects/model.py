"""What the dialects share: an engine's flags under one spelling, and a model before `deploy` is applied to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.schema.values import port_or_auto, whole_number
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree, Value

SECRET_FLAGS = {"api-key": "VLLM_API_KEY", "hf-token": "HF_TOKEN"}
"""Flags whose value vLLM 0.32 also takes from a variable, which no process list shows.

Sources: `vllm/envs.py` (VLLM_API_KEY), huggingface_hub's environment variables (HF_TOKEN).
"""

SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
_PAIRS = re.compile(r"\s*\w+\s*=\s*\d+\s*(,\s*\w+\s*=\s*\d+\s*)*")


@dataclass(frozen=True)
class Entry:
    """A model as its dialect has it. `path` is where it stands, `port` the one of its own."""

    name: str
    model: str
    path: Path
    engine_args: Mapping[str, Value] = field(default_factory=dict)
    action_args: tuple[str, ...] = ()
    port: int | Literal["auto"] | None = None
    secret_env: Mapping[str, Secret] = field(default_factory=dict)
    options: ModelOptions = field(default_factory=ModelOptions)


def read_flags(args: Mapping[str, Value], path: Path) -> Checked[Tree]:
    """Return flags under vLLM's long names: dashes (up to the first dot), no leading `--`; null ones are left out."""
    flags: Tree = {}
    faults = KeyFaults()
    for key, value in args.items():
        flag = flag_name(key)
        if flag in flags:
            faults.add((*path, key), f"--{flag} is set twice", "keep one of the two spellings")
        elif flag in SIZES and value is not None and whole_number(value, 1, 999999) is None:
            faults.add(
                (*path, key), f"{quoted(value)}: expected a whole number from 1", "as in tensor-parallel-size: 2"
            )
        elif value is not None:
            flags[flag] = _modernized(flag, value)
    return flags, faults


def take_port(flags: Tree, path: Path) -> Checked[int | Literal["auto"] | None]:
    """Remove the flag `port` from the others and return it."""
    faults = KeyFaults()
    value = flags.pop("port", None)
    port = None if value is None else port_or_auto(value)
    if value is not None and port is None:
        faults.add((*path, "port"), f"{quoted(value)}: expected a port from 1 to 65535, or auto", "as in port: 8000")
    return port, faults


def take_model(flags: Tree, names: tuple[str, ...], path: Path) -> Checked[str]:
    """Remove the model's path or repository id from the flags, under any of its names, and return it, or ""."""
    faults = KeyFaults()
    values = [flags.pop(name) for name in names if name in flags]
    model = str(values[0]) if values and not isinstance(values[0], (dict, list, bool)) else ""
    if not model.strip():
        faults.add(path, f"has no {names[0]}", f"add {names[0]}: the model's path on the hosts, or its repository id")
    elif model.startswith("-"):
        faults.add((*path, names[0]), f"vLLM would read {quoted(model)} as a flag", f"write ./{model} or the full path")
    return model, faults


def take_secrets(flags: Tree, path: Path) -> Checked[dict[str, Secret]]:
    """Remove secret flags from the others and return them as the variables that do the same."""
    secrets: dict[str, Secret] = {}
    faults = KeyFaults()
    for flag, variable in SECRET_FLAGS.items():
        value = flags.get(flag)
        if value is None or isinstance(value, bool):
            continue
        del flags[flag]
        values = value if isinstance(value, list) else [value]
        if len(values) == 1 and not isinstance(values[0], (dict, list, bool)):
            secrets[variable] = Secret(str(values[0]))
        else:
            remedy = f"give one: it travels as {variable}, not as a flag"
            faults.add((*path, flag), "is not text" if len(values) == 1 else f"holds {len(values)} values", remedy)
    return secrets, faults


def _modernized(flag: str, value: Value) -> Value:
    """Return `limit_mm_per_prompt: image=18,video=2`, which older vLLM took, as a mapping.

    vLLM 0.32 refuses that text and takes the mapping in JSON (measured with its parser).
    """
    if flag == "limit-mm-per-prompt" and isinstance(value, str) and _PAIRS.fullmatch(value):
        pairs = (pair.split("=") for pair in value.split(","))
        return {name.strip(): int(number) for name, number in pairs}
    return value
