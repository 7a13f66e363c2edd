"""Filters of Ansible that inventories use, for the templates in their variables: those that are pure functions."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from typing import Any

from flagscale_deploy.inventory.regex_cost import ERRORS, steps
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.template_budget import TooMuchError, spend

PRICE = 60
"""What parsing and compiling a character of an expression costs."""
_TRUE = ("yes", "on", "1", "true")


def _ternary(value: object, yes: object, no: object, none: object = None) -> object:
    if value is None and none is not None:
        return none
    return yes if value else no


def _bool(value: object) -> bool | None:
    return value if value is None or isinstance(value, bool) else str(value).lower() in _TRUE


def _split(value: str, separator: str | None = None, most: int = -1) -> list[str]:
    return value.split(separator, most)


def _combine(*mappings: Mapping[str, object]) -> dict[str, object]:
    return {key: value for mapping in mappings for key, value in mapping.items()}


def _regex_replace(
    value: object,
    pattern: str,
    replacement: str = "",
    ignorecase: bool = False,
    multiline: bool = False,
    count: int = 0,
) -> str:
    text = str(value)
    return _compiled(pattern, text, ignorecase, multiline).sub(replacement, text, count)


def _regex_search(
    value: object, pattern: str, *groups: str, ignorecase: bool = False, multiline: bool = False
) -> object:
    """Return what matches, or a list of groups of it, named as in a replacement; None where nothing matches."""
    text = str(value)
    match = _compiled(pattern, text, ignorecase, multiline).search(text)
    if match is None or not groups:
        return match and match[0]
    names = [group.removeprefix("\\g<").removesuffix(">").removeprefix("\\") for group in groups]
    return [match[int(name) if name.isdecimal() else name] for name in names]


def _compiled(pattern: str, text: str, ignorecase: bool, multiline: bool) -> re.Pattern[str]:
    """Return the expression compiled, and pay for its use. Raises ValueError, and TooMuchError before it takes long."""
    try:
        spend(PRICE * len(pattern))
        ways = steps(pattern, len(text)) * (len(text) + 1)
        if ways > 10_000_000:
            raise TooMuchError(f"has the expression {quoted(pattern)}, which may take very long")
        spend(int(ways))
        return re.compile(pattern, re.IGNORECASE * ignorecase | re.MULTILINE * multiline)
    except ERRORS as error:
        raise ValueError(f"{quoted(pattern)} is not a regular expression: {error}") from error


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "basename": os.path.basename,
    "bool": _bool,
    "combine": _combine,
    "dirname": os.path.dirname,
    "mandatory": lambda value, _message="": value,
    "regex_replace": _regex_replace,
    "regex_search": _regex_search,
    "split": _split,
    "ternary": _ternary,
}
FILTERS = {**_FILTERS, **{f"ansible.builtin.{name}": function for name, function in _FILTERS.items()}}
"""By both names in Ansible; `default` is Jinja's own. What is undefined has no value for any of them but `mandatory`,
whose result is then undefined itself, as is the variable."""
