"""Estimate how long a regular expression may take, so that none of a user's file keeps the tool busy for hours."""

from __future__ import annotations

import importlib
import re
from math import inf
from typing import Any

_parser: Any = vars(re).get("_parser") or importlib.import_module("sre_parse")
"""What `re` parses with itself; Python 3.10 has it beside `re`."""

_ONE_CHARACTER = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY", "RANGE"}
_GROUPS = {"SUBPATTERN": -1, "ATOMIC_GROUP": 0}
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}
MOST_REPEATS = 10_000
"""How often a part may have to match, within other repeats too: of a part that matches nothing each takes memory."""
LONGEST = 10_000
"""Characters of an expression."""


def steps(expression: str, length: int) -> float:
    """Return how many ways there are at most to match an expression in a text of this length.

    Infinite for lookarounds, for too many repeats and for an expression that is too long. Raises re.error,
    OverflowError, RecursionError as `re.compile` does.
    """
    if len(expression) > LONGEST:
        return inf
    parsed = _parser.parse(expression)
    repeats = _repeats(parsed)
    return inf if repeats > MOST_REPEATS else max(repeats, _of_sequence(parsed, max(1, length)))


def _repeats(items: Any) -> int:
    """Return how often the part that is repeated most has to match at least: nested repeats multiply."""
    most = 1
    for kind, argument in items:
        name = str(kind)
        if name == "BRANCH":
            most = max(most, *map(_repeats, argument[1]))
        elif name in _GROUPS:
            most = max(most, _repeats(argument if name == "ATOMIC_GROUP" else argument[_GROUPS[name]]))
        elif name in _REPEATS:
            most = max(most, int(argument[0]), int(argument[0]) * _repeats(argument[2]), _repeats(argument[2]))
    return most


def _of_sequence(items: Any, length: int) -> float:
    ways = 1.0
    for kind, argument in items:
        ways *= _of_item(str(kind), argument, length)
    return ways


def _of_item(kind: str, argument: Any, length: int) -> float:
    if kind in _ONE_CHARACTER or kind == "AT":
        return 1.0
    if kind == "BRANCH":
        return float(sum(_of_sequence(branch, length) for branch in argument[1]))
    if kind in _GROUPS:
        return _of_sequence(argument if kind == "ATOMIC_GROUP" else argument[_GROUPS[kind]], length)
    if kind in _REPEATS:
        least, most, inner = argument
        least = int(least)
        most = max(least, min(int(most), length))  # what matches nothing repeats in any text
        return _power(_of_sequence(inner, length), most) * (most - least + 1)
    return inf


def _power(ways: float, times: int) -> float:
    try:
        return float(ways**times)
    except OverflowError:
        return inf


ERRORS = (re.error, OverflowError, RecursionError)
