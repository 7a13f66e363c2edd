"""The forms in which programs write a secret."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Shorter values are not hidden: they protect nothing, and `DISABLE_TOKEN: 1` must not hide every 1 in a log."""
ENCODED_AGAIN = 4 << 10


def forms_of(value: str) -> set[str]:
    """Return the value and its encodings, two deep; shell quoting one deeper (ssh, `bash -c` and `export` quote).

    Very long encodings are not encoded again.
    """
    once = encoded(value)
    twice = {form for inner in once if len(inner) <= ENCODED_AGAIN for form in encoded(inner)}
    thrice = {form for inner in twice if len(inner) <= ENCODED_AGAIN for form in shell_quoted(inner)}
    return {value} | once | twice | thrice


def encoded(value: str) -> set[str]:
    """Return the value in each encoding."""
    return {form for encode in _ENCODERS for form in encode(value)}


def shell_quoted(value: str) -> Iterator[str]:
    """Yield the value as shells quote it."""
    yield shlex.quote(value)
    # Without the outer quotes, for a value that is quoted together with a prefix: '--api-key=it'"'"'s'.
    yield value.replace("'", "'\"'\"'")
    # bash's own `printf %q` and `set -x` escape with backslashes.
    yield re.sub(r"([^A-Za-z0-9_@%+=:,./\n-])", r"\\\1", value)


def _url(value: str) -> Iterator[str]:
    yield from (quote(value), quote(value, safe=""), quote_plus(value))
    yield from (re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quote(value, safe="")),)


def escaped(value: str) -> Iterator[str]:
    """Yield the value as it stands within quotes of JSON, Python and YAML, and in XML."""
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (repr(value.encode("utf-8", "surrogateescape"))[2:-1], value.replace("'", "''"))
    yield from (html.escape(value), html.escape(value, quote=False))


def _base64(value: str) -> Iterator[str]:
    """Yield the part of its base64 form that does not depend on the text around it, for each alignment modulo 3."""
    data = value.encode()
    for before in range(3):
        shown = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        whole = len(shown) if (before + len(data)) % 3 == 0 else len(shown) - 1
        inner = shown[(0, 2, 3)[before] : whole]
        if len(inner) >= SHORTEST:
            yield from (inner, inner.translate(str.maketrans("+/", "-_")))


_ENCODERS: tuple[Callable[[str], Iterator[str]], ...] = (shell_quoted, _url, escaped, _base64)
