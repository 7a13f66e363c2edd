"""Build the command line of `vllm serve` from a model's settings, so that vLLM's own parser reads them back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.json_numbers import json_text
from flagscale_deploy.plan.vllm_flags import (
    BOOLEANS,
    COMMA_LISTS,
    JSON_LISTS,
    REPEATED,
    SPACED,
    SWITCHES,
)

_OPTIMIZATION = re.compile(r"O[0-9]?(?:\..*)?")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def serve_argv(model: ModelSpec, *, port: int | None, extra: Mapping[str, object]) -> tuple[str, ...]:
    """Return the words of `vllm serve MODEL --key=value … --port=N --action …`, not quoted for a shell.

    The user's flags keep their order; `extra` are the planner's, which replace a flag of the same name or follow the
    others; action-args are bare and last. `None` is left out; without a port there is no `--port`. Raises InputError
    for a list that no command line can express.
    """
    flags = {**model.engine_args, **extra}
    words = [word for key, value in flags.items() for word in _render(key, value, model)]
    words += [] if port is None else [f"--port={port}"]
    words += [word for word in (_dashed(action) for action in model.action_args) if word not in words]
    return ("vllm", "serve", model.model, *words)


def is_on(value: object) -> bool:
    """Return whether a flag without a value is given: `true`, or a word for it."""
    return _WORDS.get(str(value).casefold(), False)


def _dashed(flag: str) -> str:
    """Return a flag with its dashes, `-O3` or `--seed=1`."""
    return f"-{flag}" if is_optimization_level(flag.partition("=")[0]) else f"--{flag}"


def is_optimization_level(flag: str) -> bool:
    """Return whether a flag is `O`, `O3` or `O.mode`, the only one that vLLM knows by a single dash and a capital."""
    return _OPTIMIZATION.fullmatch(flag) is not None


def _render(key: str, value: Any, model: ModelSpec) -> Iterator[str]:
    """Yield the words of one flag; none for a value that means absence."""
    if key in BOOLEANS | SWITCHES and isinstance(value, str):
        value = _WORDS.get(value.casefold(), value)
    if value is None or (isinstance(value, (list, tuple)) and not value and key not in JSON_LISTS):
        return
    if "." in key:
        yield f"{_dashed(key)}={_json_field(value)}"
    elif key == "O" and not isinstance(value, bool):
        yield f"-O{_text(value)}"
    elif value is True:
        yield _dashed(key)
    elif value is False:
        if key in BOOLEANS:
            yield f"--no-{key}"
    elif isinstance(value, (list, tuple)):
        yield from _render_list(key, [_text(item) for item in value], value, model)
    elif key in SPACED:
        yield from (f"--{key}", _text(value))
    else:
        yield f"--{key}={_text(value)}"


def _render_list(key: str, items: list[str], value: Any, model: ModelSpec) -> Iterator[str]:
    if key in JSON_LISTS:
        yield f"--{key}={json_text(value)}"
    elif key in COMMA_LISTS:
        yield f"--{key}={','.join(items)}"
    elif key in REPEATED or len(items) == 1:
        # The word after `=` is always a value, even one that starts with a dash.
        yield from (f"--{key}={item}" for item in items)
    else:
        _refuse_dashes(key, items, model)
        yield from (f"--{key}", *items)


def _refuse_dashes(key: str, items: list[str], model: ModelSpec) -> None:
    """Raise InputError for an item that starts with a dash: it would be read as a flag."""
    dashed = next((item for item in items if item.startswith("-")), None)
    if dashed is not None:
        raise InputError.at(
            model.place(key), f"vLLM would read {dashed!r} as a flag", "remove the value: vLLM accepts no such list"
        )


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return json_text(value) if isinstance(value, (Mapping, list, tuple)) else str(value)


def _json_field(value: Any) -> str:
    """Return the value of a dotted flag (`--limit-mm-per-prompt.image=8`), which vLLM reads as JSON, else as text.

    A string that would be read as something else ("8", "true", "4k") becomes a JSON string.
    """
    if isinstance(value, str):
        return json_text(value) if _reads_as_json(value) else value
    return json_text(value)


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text.strip()[:1].isdigit() and text.strip()[-1:] in "kmgtKMGT"
    return True
