"""Quoting for POSIX shells: the only place where values become shell words."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


class Raw(str):
    """Text that is shell already, because the user wrote it as shell (`before_start`); it is never quoted."""


def quote(value: object) -> str:
    """Return a value as one shell word, `Raw` as it is. Raises ValueError for a NUL byte, which no word can hold."""
    if isinstance(value, Raw):
        return str(value)
    text = str(value)
    if "\0" in text:
        raise ValueError("a NUL byte cannot be passed to a program")
    return shlex.quote(text)


def join(words: Iterable[object]) -> str:
    """Return words as one command line."""
    return " ".join(quote(word) for word in words)


def assignments(variables: Iterable[tuple[str, object]]) -> str:
    """Return lines `NAME='value'` for a file that a script sources."""
    return "".join(f"{name}={quote(value)}\n" for name, value in variables)
