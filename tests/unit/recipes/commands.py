"""Command lines of `vllm serve`, compared flag by flag, by rules of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

SHORT = {"cc": "compilation-config", "tp": "tensor-parallel-size"}

Flags = dict[str, tuple[object, ...]]


def flags_of(argv: Sequence[str]) -> Flags:
    """Return the values of each flag behind `vllm serve MODEL`; the last of several counts, as for vLLM."""
    assert list(argv[:2]) == ["vllm", "serve"]
    flags: Flags = {}
    words = [part for word in argv[3:] for part in (word.split(" ") if re.match("--?[a-z-]+ ", word) else [word])]
    while words:
        name, equals, value = words.pop(0).partition("=")
        assert re.match("--?[A-Za-z]", name), name
        values = [value] if equals else []
        while not equals and words and not re.match("--?[A-Za-z]", words[0]):
            values.append(words.pop(0))
        head, dot, key = name.lstrip("-").partition(".")
        flag = head.replace("_", "-")
        flags[SHORT.get(flag, flag) + dot + key] = tuple(map(_meaning, values))
    return flags


def without(flags: Flags, names: Iterable[str]) -> Flags:
    """Return the flags that are not named."""
    return {flag: values for flag, values in flags.items() if flag not in {*names}}


def _meaning(text: str) -> object:
    """Return what JSON means, and other texts as they are."""
    return json.loads(text) if text.startswith("{") else text
