"""Quote what a user wrote, in a message: little of it."""

from __future__ import annotations

LONGEST = 80
"""Characters of a value that a message shows."""


def quoted(value: object) -> str:
    """Return a value as Python writes it, cut where it is long; of a number with too many digits their count."""
    try:
        text = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        text = "a value that is too large to show"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}…"
