"""What the dialects share: an engine's flags under one spelling, and a model before `deploy` has had its say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flagscale_deploy.config.dialects.short_names import SHORT_NAMES
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.values import port_or_auto, whole_number
from flagscale_deploy.secrets import Secret

SECRET_FLAGS = {"api-key": "VLLM_API_KEY", "hf-token": "HF_TOKEN"}
"""Flags whose value vLLM 0.32 also takes from a variable, which no process list shows.

Sources: `vllm/envs.py` (VLLM_API_KEY), huggingface_hub's environment variables (HF_TOKEN).
"""

SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
_PAIRS = re.compile(r"\s*\w+\s*=\s*\d+\s*(,\s*\w+\s*=\s*\d+\s*)*")


@dataclass(frozen=True)
class Entry:
    """A model as its dialect gives it. `path` is where it stands, `port` what it asks for itself."""

    name: str
    model: str
    path: Path
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    action_args: tuple[str, ...] = ()
    port: int | Literal["auto"] | None = None
    secret_env: Mapping[str, Secret] = field(default_factory=dict)
    options: ModelOptions = field(default_factory=ModelOptions)


def read_flags(args: Mapping[str, Any], path: Path, findings: Findings) -> dict[str, Any]:
    """Flags under vLLM's long names: dashes (up to the first dot), no leading `--`; what is null is left out."""
    flags: dict[str, Any] = {}
    for written, value in args.items():
        key = flag_name(written)
        if key in flags:
            findings.add((*path, written), f"--{key} is set twice", "keep one of the two spellings")
        elif key in SIZES and value is not None and whole_number(value, 1, 999999) is None:
            findings.add(
                (*path, written), f"{value!r}: expected a whole number from 1", "as in tensor-parallel-size: 2"
            )
        elif value is not None:
            flags[key] = _in_todays_words(key, value)
    return flags


def flag_name(written: str) -> str:
    """`--max_model_len` is `max-model-len`, `tp` is `tensor-parallel-size`; a field's name behind a dot stays."""
    head, dot, field_name = written.strip().lstrip("-").partition(".")
    head = head.replace("_", "-")
    return SHORT_NAMES.get(head, head) + dot + field_name


def take_port(flags: dict[str, Any], path: Path, findings: Findings) -> int | Literal["auto"] | None:
    """The flag `port`, taken out of the others."""
    port = flags.pop("port", None)
    found = None if port is None else port_or_auto(port)
    if port is not None and found is None:
        findings.add((*path, "port"), f"{port!r}: expected a port from 1 to 65535, or auto", "as in port: 8000")
    return found


def take_model(flags: dict[str, Any], names: tuple[str, ...], path: Path, findings: Findings) -> str:
    """The model's path or repository id, taken out of the flags under any of its names; "" where there is none."""
    given = [flags.pop(name) for name in names if name in flags]
    model = str(given[0]) if given and not isinstance(given[0], (dict, list, bool)) else ""
    if not model.strip():
        findings.add(path, f"has no {names[0]}", f"add {names[0]}: the model's path on the hosts, or its repository id")
    elif model.startswith("-"):
        findings.add((*path, names[0]), f"vLLM would read {model!r} as a flag", f"write ./{model} or the full path")
    return model


def take_secrets(flags: dict[str, Any], path: Path, findings: Findings) -> dict[str, Secret]:
    """Flags whose values are secret, taken out of the others, as the variables that do the same."""
    taken = {}
    for flag, variable in SECRET_FLAGS.items():
        value = flags.get(flag)
        if value is None or isinstance(value, bool):
            continue
        del flags[flag]
        values = value if isinstance(value, list) else [value]
        if len(values) == 1 and not isinstance(values[0], (dict, list, bool)):
            taken[variable] = Secret(str(values[0]))
        else:
            findings.add(
                (*path, flag), f"holds {len(values)} values", f"give one: it travels as {variable}, not as a flag"
            )
    return taken


def _in_todays_words(key: str, value: Any) -> Any:
    """`limit_mm_per_prompt: image=18,video=2`, which older vLLM took and published files have, as a mapping.

    vLLM 0.32 refuses that text and takes the mapping in JSON (measured with its parser).
    """
    if key == "limit-mm-per-prompt" and isinstance(value, str) and _PAIRS.fullmatch(value):
        pairs = (pair.split("=") for pair in value.split(","))
        return {name.strip(): int(number) for name, number in pairs}
    return value
