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


def steps(expression: str, length: int) -> float:
    """Return how many ways there are at most to match an expression in a text of this length; infinite for lookarounds.

    Raises re.error, OverflowError, RecursionError as `re.compile` does.
    """
    return _of_sequence(_parser.parse(expression), max(1, length))


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
        least, most = int(least), min(int(most), length)
        return _power(_of_sequence(inner, length), most) * max(1, most - least + 1)
    return inf


def _power(ways: float, times: int) -> float:
    try:
        return float(ways**times)
    except OverflowError:
        return inf


ERRORS = (re.error, OverflowError, RecursionError)
