"""Learn the secrets in what a user wrote, before anything is said about it: a fault may quote a wrong value.

A value is one by its place (below `secrets`, `api-key`, …), or by its name (`HF_TOKEN=…`), in any format and at any
depth, also where the text is broken. `redact` of `secrets.py` knows the others by their look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import ParamSpec, TypeVar

from flagscale_deploy.errors import InputError
from flagscale_deploy.secrets import Redactor, is_secret_name
from flagscale_deploy.support.suggest import suggesting

P = ParamSpec("P")
T = TypeVar("T")

MOST = 500
"""Values that are learned from one text."""
MOST_NODES = 200_000
SHORTEST = 6
LONGEST_KEY = 200
"""Characters of a key's end that say whether it names a secret."""
_ASSIGNED = re.compile(
    r"""(?<![A-Za-z0-9_.-])([A-Za-z_][\w.-]{0,80})["']?\]?[ \t]{0,8}[:=][ \t]{0,8}(?=([^\s][^\n]{0,400}))"""
)
_OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]{0,80})[ \t]{1,8}(?=([^\s$/~.-][^\n]{0,400}))")
"""An option of a command line, and what follows it, which is no path, no variable and no other option."""
_FIRST = re.compile(r"[^\s,}\]'\"]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_.-]{0,40}")
_NO_SECRET = re.compile(
    r"\$\{[^{}]*\}|\{\{.*\}\}|!vault\b.*|\{ ?[\"']?\w{1,80}[\"']? ?: .*"
    r"|true|false|null|none|auto|yes|no|off|on|default|required|optional",
    re.IGNORECASE | re.DOTALL,
)
"""References such as `${oc.env:HF_TOKEN}`, mappings, and words that no one has as a secret."""
_PATH = re.compile(
    r"(?:~|\.{1,2})?/[\w./ @:-]{1,400}"
    r"|[\w./-]{1,200}\.(?:txt|key|token|pem|secret|env|json|ya?ml|conf|cfg|ini|crt|cert)"
)
"""What a path looks like: it may be quoted below `secret_files` and `key_files`, and where there is such a file."""
_VALUE_PLACES = frozenset(("secrets", "secret_files"))
_FILE_PLACES = frozenset(("secret_files", "key_files"))
_VARIABLE_PLACES = frozenset(("env", "envs", "environment", "fsd_env"))
_REFERENCE = re.compile(
    r"\$\{(?:([^.:,{}]{1,200}|(?=[^{}]{0,200}[^\w.:,{}[\]-])[^:,{}]{1,200})|[^,{}]{1,100},([^{}]{1,200}))\}"
)
"""A value that was taken for a reference, and the default of a reference."""
_learning: ContextVar[Redactor | None] = ContextVar("learning", default=None)


@contextmanager
def learning(redactor: Redactor) -> Iterator[None]:
    """Have what is read within the block teach this redactor."""
    token = _learning.set(redactor)
    try:
        yield
    finally:
        _learning.reset(token)


def taught() -> Redactor:
    """Return the redactor that learns at the moment; a new one where none does."""
    return _learning.get() or Redactor()


def quoting_no_secret(read: Callable[P, T]) -> Callable[P, T]:
    """Have a function that reads what a user wrote hide the secrets in it in the faults of its InputError."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        redactor = taught()
        with learning(redactor), suggesting():
            try:
                return read(*args, **kwargs)
            except InputError as error:
                hide = redactor.redact
                raise InputError(
                    [
                        replace(fault, where=hide(fault.where), problem=hide(fault.problem), remedy=hide(fault.remedy))
                        for fault in error.faults
                    ]
                ) from None

    return guarded


def learn_value(value: object, *path: str) -> None:
    """Learn the secrets in a document, or in a part of it at this path."""
    redactor = _learning.get()
    if redactor is not None:
        _add(redactor, _within(value, path))


def learn_text(text: str) -> None:
    """Learn the secrets in a text of any format: `NAME=VALUE`, `NAME: VALUE`, `--name VALUE`."""
    redactor = _learning.get()
    if redactor is not None:
        _add(redactor, _assigned(text))


def learn(secret: str) -> None:
    """Learn a value that is a secret wherever it stands."""
    redactor = _learning.get()
    if redactor is not None:
        redactor.add(secret)


def _add(redactor: Redactor, values: Iterator[str]) -> None:
    chosen: set[str] = set()
    for value in values:
        if len(value) >= SHORTEST and not (_NO_SECRET.fullmatch(value) or _is_named(value) or is_file(value)):
            chosen.add(value)
        if len(chosen) >= MOST:
            break
    if chosen:
        redactor.add(*chosen, quoted_only=True)


def _assigned(text: str) -> Iterator[str]:
    for match in _ASSIGNED.finditer(text):
        name, rest = match[1], match[2].lstrip("[ ") or " "
        if _is_path_of_secret(text, match.start(), rest):
            continue
        if is_secret_name(name) and not (_is_place(_VALUE_PLACES, (name,)) and _VARIABLE.match(rest)):
            if rest[0] in "'\"":
                yield rest[1:].partition(rest[0])[0]
                continue
            phrase = rest.partition(" #")[0].rstrip(" ,}]")
            yield from (phrase, phrase.rstrip("="))
            if first := _FIRST.match(rest):
                yield first[0]
    for match in _OPTION.finditer(text):
        if is_secret_name(match[1]):
            rest = match[2]
            yield rest[1:].partition(rest[0])[0] if rest[0] in "'\"" else re.split(r"[\s;&|'\")]", rest, maxsplit=1)[0]


def _within(value: object, path: tuple[str, ...]) -> Iterator[str]:
    """Yield what may be secret: all below a secret name, and what is no name or path where those are meant."""
    waiting: list[tuple[object, tuple[str, ...]]] = [(value, path)]
    seen = set[int]()
    for _ in range(MOST_NODES):
        if not waiting:
            break
        value, path = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(item, (*path, str(key)[-LONGEST_KEY:])) for key, item in value.items()]
            if _is_place(_VALUE_PLACES, path):
                yield from (str(key) for key in value if not _is_variable(str(key)))
        elif isinstance(value, (list, tuple, set)):
            waiting += [(item, (*path, "")) for item in value]
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            if id(value) not in seen:  # one text behind many aliases is read once
                seen.add(id(value))
                yield from _assigned(str(value))
            yield from _of_scalar(str(value), path)


def _of_scalar(text: str, path: tuple[str, ...]) -> Iterator[str]:
    if not _FILE_PLACES.isdisjoint(path) and _PATH.fullmatch(text):
        return
    if any(is_secret_name(key) and not _is_place(_VALUE_PLACES, (key,)) for key in path):
        yield from (text, text.rstrip("="), *(part for match in _REFERENCE.finditer(text) for part in match.groups("")))
    elif "key_files" in path:
        yield text
    elif _is_place(_VALUE_PLACES, path):
        if not _is_variable(text):
            yield text
    else:
        yield from _of_variable(text, path)


def _of_variable(text: str, path: tuple[str, ...]) -> Iterator[str]:
    """Yield what stands where variables are set and is no value of a variable: `[A=b]`, `A: [b]`, `A: {value: b}`."""
    below = next((path[at + 1 :] for at, key in enumerate(path) if _is_place(_VARIABLE_PLACES, (key,))), None)
    if below is not None:
        below = below[2:] if below[:1] == ("nodes_envs",) else below
        if len(below) > 1:
            yield text
        elif not any(below):
            yield text.partition("=")[2]


def _is_place(places: frozenset[str], path: tuple[str, ...]) -> bool:
    return any(key.replace("-", "_").lower().rpartition(".")[2] in places for key in path)


def _is_path_of_secret(text: str, at: int, rest: str) -> bool:
    value = re.split(r"[\"'\n,}\]]| #", rest.lstrip("\"'"), maxsplit=1)[0].rstrip()
    before = text[max(0, at - 400) : at]
    return _PATH.fullmatch(value) is not None and any(place in before for place in _FILE_PLACES)


def is_file(text: str) -> bool:
    """Return whether a text looks like a path, and something is there."""
    return _PATH.fullmatch(text) is not None and os.path.exists(os.path.expanduser(text))


def _is_variable(text: str) -> bool:
    return _VARIABLE.fullmatch(text) is not None or _is_named(text)


def _is_named(text: str) -> bool:
    """Return whether a text is the name of a secret variable, and no secret."""
    return text.isidentifier() and is_secret_name(text)
