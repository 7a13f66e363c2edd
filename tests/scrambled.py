"""A plugin under which no error text can be read inside the code, only where it leaves the code.

`pytest -p tests.scrambled tests/unit/checks …` runs tests as they are: each text that says what is wrong is scrambled
where it is made, and put right again in a verdict and in the links that `try_links` returns. Code that branches on such
a text takes another way, and its test fails.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from flagscale_deploy.checks.types import Finding, Link, Parsed, Verdict
from flagscale_deploy.deploy import network_test
from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.facts.model import Facts, ModelFiles, TlsFile
from flagscale_deploy.transport.replies import Replies

SHIFT = 0x4E00  # printable letters of another script: the error classes drop what is not
SCRAMBLED = {ord(letter): ord(letter) + SHIFT for letter in string.ascii_letters}
READABLE = {scrambled: plain for plain, scrambled in SCRAMBLED.items()}

TEXTS: Mapping[type, tuple[str, ...]] = {
    Fault: ("problem", "remedy"),
    HostError: ("problem", "remedy"),
    Finding: ("found", "expected", "remedy"),
    Link: ("problem", "use"),
    Parsed: ("error", "broken"),
    ModelFiles: ("problem", "torn"),
    TlsFile: ("problem",),
    Facts: ("gpu_error", "environment_error", "boot_problem"),
}
"""The fields that hold a text for people."""


def scramble(value: Any) -> Any:
    """Return a text with every letter replaced by one that nobody looks for, and a mapping with such values."""
    return _translated(value, SCRAMBLED)


def readable(value: Any) -> Any:
    """Return what `scramble` was given."""
    return _translated(value, READABLE)


def pytest_configure() -> None:
    for kind, names in TEXTS.items():
        _change_on_construction(kind, names, scramble)
    _change_on_construction(Verdict, ("found", "expected", "remedy"), readable)
    network_test.try_links = _with_scrambled_replies(network_test.try_links)


def _translated(value: Any, table: Mapping[int, int]) -> Any:
    if isinstance(value, Mapping):
        return {key: _translated(text, table) for key, text in value.items()}
    return value.translate(table) if isinstance(value, str) else value


def _change_on_construction(kind: type, names: tuple[str, ...], change: Callable[[Any], Any]) -> None:
    original = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(original)

    @wraps(original)
    def construct(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        for name in names:
            if name in bound.arguments:
                bound.arguments[name] = change(bound.arguments[name])
        original(*bound.args, **bound.kwargs)

    setattr(kind, "__init__", construct)  # noqa: B010 (mypy forbids the assignment)


def _with_scrambled_replies(try_links: Callable[..., tuple[Link, ...]]) -> Callable[..., tuple[Link, ...]]:
    """Have hosts reply with scrambled texts, and return links whose texts can be read."""
    read = Replies.read

    def scrambled_reply(replies: Replies[Any], line: bytes) -> Any:
        message = read(replies, line)
        return None if message is None else _with_scrambled_problems(message)

    @wraps(try_links)
    def tried(*args: Any, **kwargs: Any) -> tuple[Link, ...]:
        setattr(Replies, "read", scrambled_reply)  # noqa: B010 (mypy forbids the assignment)
        try:
            links = try_links(*args, **kwargs)
        finally:
            setattr(Replies, "read", read)  # noqa: B010
        for link in links:
            for name in TEXTS[Link]:
                object.__setattr__(link, name, readable(getattr(link, name)))
        return links

    return tried


def _with_scrambled_problems(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: scramble(part) if key == "problem" else _with_scrambled_problems(part)
                for key, part in value.items()}  # fmt: skip
    return [_with_scrambled_problems(part) for part in value] if isinstance(value, list) else value
