"""Replies of host programs as a hostile or broken host would send them: real ones with something in them changed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 1 << 31, 1 << 62, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "gpu02", "../../etc", "\x1b[2J", "a\n→ fine\r\nb", "\u202e\u2028\udc80", "%s{0}[red]", "9" * 5000, "\0"),
    *("x" * 100_000, [], {}, [[]], [None], {"": None}, {"x": 1}, [0] * 1000, ["x"] * 1000),
)
"""What is put in the place of a value."""


def nodes(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the place of every value in a message, the message itself first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def mutated(chance: random.Random, message: Any) -> Any:
    """Return a copy with one place changed: another value there, none, one too many, another key, or a value twice."""
    copied = copy.deepcopy(message)
    path: list[Any] = list(chance.choice([path for path in nodes(message) if path]))
    last, inside = path.pop(), copied
    for key in path:
        inside = inside[key]
    match chance.randrange(6):
        case 0:
            del inside[last]
        case 1 if isinstance(inside, dict):
            inside[str(chance.choice(ODD))[:50]] = inside.pop(last)
        case 2 if isinstance(inside, list):
            inside += [inside[last]] * chance.choice((1, 2, 100))
        case 3 if isinstance(inside[last], dict):
            inside[last][str(chance.choice(ODD))[:50]] = chance.choice(ODD)
        case _:
            inside[last] = copy.deepcopy(chance.choice(ODD))
    return copied
