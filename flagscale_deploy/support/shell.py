"""Quoting for POSIX shells: the only place where values become shell words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class Raw(str):
    """Text that is shell already, because the user wrote it as shell (`before_start`); it is never quoted."""


class Expanding(str):
    """Text in which `$NAME` and `${NAME}` are variables of the host, empty if unset, and `$$` is a dollar sign.

    Nothing else in it means anything to a shell; as text it is what the user wrote.
    """


def quote(value: object) -> str:
    """Return a value as one shell word, `Raw` as it is. Raises ValueError for a NUL byte, which no word can hold."""
    if isinstance(value, Raw):
        return str(value)
    text = str(value)
    if "\0" in text:
        raise ValueError("a NUL byte cannot be passed to a program")
    return _expanding(text) if isinstance(value, Expanding) else shlex.quote(text)


def _expanding(text: str) -> str:
    words, end = [], 0
    for match in _REFERENCE.finditer(text):
        name = match[1] or match[2]
        words += [shlex.quote(text[end : match.start()])] if match.start() > end else []
        words.append(f'"${{{name}-}}"' if name else "'$'")
        end = match.end()
    return "".join(words) + (shlex.quote(text[end:]) if end < len(text) or not words else "")


def quote_path(path: str) -> Raw:
    """Return a path as one shell word; a leading `~/` means the home directory, as in a shell."""
    return Raw(f'"$HOME"/{quote(path[2:])}' if path.startswith("~/") else quote(path))


def references(text: str) -> list[str]:
    """Return the variables that a text refers to, and "$" for each `$$`; none: it means itself."""
    return [match[1] or match[2] or "$" for match in _REFERENCE.finditer(text)]


def exports(variables: Mapping[str, object]) -> str:
    """Return the lines that export the `Expanding` ones among variables, in their order."""
    return "".join(
        f"export {name}={quote(value)}\n" for name, value in variables.items() if isinstance(value, Expanding)
    )


def literals(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are not `Expanding`."""
    return {name: value for name, value in variables.items() if not isinstance(value, Expanding)}


def join(words: Iterable[object]) -> str:
    """Return words as one command line."""
    return " ".join(quote(word) for word in words)


def assignments(variables: Iterable[tuple[str, object]]) -> str:
    """Return lines `NAME='value'` for a file that a script sources."""
    return "".join(f"{name}={quote(value)}\n" for name, value in variables)
