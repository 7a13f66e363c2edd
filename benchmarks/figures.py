"""What a benchmark found, beside what is wanted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GROSS = 2.0
"""In CI, on a machine that others use, only twice the target is a failure."""


@dataclass(frozen=True)
class Figure:
    """One measured number; less is better. `unit` is × where it is a ratio of medians.

    `target` None: it is shown for comparison, and nothing is wanted of it.
    """

    benchmark: str
    what: str
    value: float
    unit: str
    target: float | None = None
    detail: str = ""
    reached: float | None = None
    """What is reached where the target is not (README.md says why): the reduced run compares with that."""

    @property
    def met(self) -> bool:
        return self.target is None or self.value <= self.target

    @property
    def gross(self) -> bool:
        """Whether it is so far off that no busy machine explains it."""
        return self.target is not None and self.value > GROSS * max(self.target, self.reached or 0.0)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown."""
    rows = ["| benchmark | what | found | wanted | |", "|---|---|---|---|---|"]
    for each in figures:
        wanted = "" if each.target is None else f"≤ {number(each.target)} {each.unit}"
        mark = "" if each.target is None else "✓" if each.met else "✗"
        detail = f" ({each.detail})" if each.detail else ""
        rows.append(
            f"| {each.benchmark} | {each.what} | {number(each.value)} {each.unit}{detail} | {wanted} | {mark} |"
        )
    return "\n".join(rows)


def number(value: float) -> str:
    """Three digits, of which none is noise: 0.123, 1.23, 12.3, 123."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
