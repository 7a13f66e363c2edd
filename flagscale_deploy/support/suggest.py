"""Spelling suggestions for unknown keys, flags and names."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CUTOFF = 0.6
"""How similar two words have to be, from 0 to 1 (`difflib`'s own default)."""
MOST_NAMES = 1000
"""Of more names, only those that stand next to the word in the alphabet are compared with it."""
MOST_LISTED = 100
LONGEST = 64
"""Characters of a word that is compared at all."""
MOST_WORK = 100_000
"""Names that all words of one reading are compared with; comparing words of 16 characters takes twice as long."""

_work: ContextVar[list[float] | None] = ContextVar("work", default=None)


@contextmanager
def suggesting() -> Iterator[None]:
    """Have all suggestions within the block take seconds at most: the first words get one. Blocks may be nested."""
    token = _work.set([MOST_WORK] if (left := _work.get()) is None else left)
    try:
        yield
    finally:
        _work.reset(token)


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is spelled most like a word, or None if none is close; `-` and `_` count as equal."""
    work = _work.get()
    if len(word) > LONGEST or (work is not None and work[0] <= 0):
        return None
    ordered = sorted(names)
    if len(ordered) > MOST_NAMES:
        first = max(0, bisect_left(ordered, word) - MOST_NAMES // 2)
        ordered = ordered[first : first + MOST_NAMES]
    if work is not None:
        work[0] -= len(ordered) * (1 + len(word) ** 3 / 4096)
    folded = {_fold(name): name for name in reversed(ordered) if len(name) <= 2 * LONGEST}
    matches = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=CUTOFF)
    return folded[matches[0]] if matches else None


def suggest(word: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """Return `did you mean NAME?` for the nearest name; if none is close `otherwise`, by default the list of names."""
    names = names if isinstance(names, Collection) else list(names)
    near = nearest(word, names)
    if near is not None:
        return f"did you mean {near}?"
    if otherwise is not None:
        return otherwise
    if len(names) > MOST_LISTED:
        return f"none of the {len(names):,} names is like it"
    return f"known: {', '.join(sorted(set(names)))}" if names else "take it out"


def _fold(word: str) -> str:
    return word.replace("-", "_")
