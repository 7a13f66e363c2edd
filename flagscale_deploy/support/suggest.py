"""Spelling suggestions for unknown keys, flags and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""How similar two words have to be, from 0 to 1 (`difflib`'s own default)."""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is spelled most like a word, or None if none is close; `-` and `_` count as equal."""
    folded = {_fold(name): name for name in sorted(names, reverse=True)}
    matches = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=CUTOFF)
    return folded[matches[0]] if matches else None


def suggest(word: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """Return `did you mean NAME?` for the nearest name; if none is close `otherwise`, by default the list of names."""
    listed = sorted(set(names))
    near = nearest(word, listed)
    if near is not None:
        return f"did you mean {near}?"
    if otherwise is not None:
        return otherwise
    return f"known: {', '.join(listed)}" if listed else "take it out"


def _fold(word: str) -> str:
    return word.replace("-", "_")
