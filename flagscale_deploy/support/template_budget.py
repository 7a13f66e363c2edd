"""What templates that users write may do: each operation is paid from a `Budget`, by the size of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2

LARGEST = 256 << 10
"""Characters of a text, or entries of a list at any depth. All hosts of a group, as a list, are one value."""
LARGEST_BITS = 1 << 14
MANY = 50
STEP = 20
"""What each operation costs beside the size of its values."""
SHARE, RESERVE = 20_000, 8_000_000
"""What each script or host adds to a budget, and what it begins with: 400,000 operations, 1 s."""
MOST = 8 * RESERVE
"""What all scripts, or all hosts of a file, may add together."""

_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


class TooMuchError(jinja2.TemplateRuntimeError):
    """A template does too much, or makes too large a value."""


class Budget:
    """What templates may still do. `share` is what each script or host adds to it."""

    def __init__(self, share: int = SHARE) -> None:
        self.left = RESERVE
        self.added = share
        self._unadded = MOST
        self.sizes: dict[int, tuple[object, int]] = {}
        """Sizes of long lists and mappings by their ids; no template changes one."""

    @contextmanager
    def share(self) -> Iterator[None]:
        """Let the templates of one script or host, in the block, use this budget."""
        added = min(self.added, self._unadded)
        self.left += added
        self._unadded -= added
        token = _budget.set(self)
        try:
            yield
        finally:
            _budget.reset(token)


def spend(units: int) -> None:
    """Pay for an operation. Raises TooMuchError where the budget is exhausted."""
    budget = _budget.get()
    if budget is not None:
        budget.left -= STEP + units
        if budget.left < 0:
            raise TooMuchError("takes too long, or writes too much")


def measured(value: Any) -> Any:
    """Return a value and pay for measuring it. Raises TooMuchError where it is larger than any may be."""
    spend(size_of(value) // 16)
    return value


def written(value: Any) -> Any:
    """Return a value and pay for a copy of it. Raises TooMuchError where it is larger than any may be."""
    spend(size_of(value))
    return value


def size_of(value: Any) -> int:
    """Return the characters and entries of a value, at any depth; pay for counting entries."""
    if isinstance(value, str | bytes | range):
        return _allowed(len(value) + 1)
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        raise TooMuchError("makes a number of too many digits")
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return 1
    budget = _budget.get()
    if budget is None or id(value) not in budget.sizes:
        size = _count(value)
        if budget is None or len(value) < MANY:
            return size
        budget.sizes[id(value)] = value, size
    return budget.sizes[id(value)][1]


def _count(value: Any) -> int:
    size, entries, waiting = 0, 0, [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str | bytes | range):
            size += len(part)
        elif isinstance(part, dict):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        entries += 1
        _allowed(size + entries + len(waiting))
    spend(4 * entries)
    return size + entries


def _allowed(size: int) -> int:
    if size > LARGEST:
        raise TooMuchError("makes too large a value")
    return size


def pay_product(values: list[Any], lengths: bool, price: float = 1 / 16) -> None:
    """Pay for an operation that may write each value for each part of the others, and as often as a number says."""
    product = 1
    for value in values:
        length = abs(value) if lengths and isinstance(value, int) else size_of(value)
        product *= length + 1
        if product > RESERVE:
            raise TooMuchError("makes too large a value")
    spend(int(product * price))


def pay_format(text: str, values: list[Any]) -> None:
    """Pay for `%` and `format`, whose texts hold lengths: `%1000000000d`."""
    if re.search(r"\d{6}", text) or re.search(r"\{[^{}]{0,1000}\{", text):
        raise TooMuchError("has too large a width in a format, or one that is computed")
    largest = max(map(int, re.findall(r"\d+", text)), default=0)
    pay_product([text, largest, *values], "*" in text)
