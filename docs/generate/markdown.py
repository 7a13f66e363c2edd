"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a `|` in a cell is escaped outside of code."""
    lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(map(_cell, row)) for row in rows)]
    return "".join(f"| {line} |\n" if at != 1 else f"|{line}|\n" for at, line in enumerate(lines))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
