"""The figures of a benchmark and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GROSS = 2.0
"""In CI, on a shared machine, only twice the target is a failure."""


@dataclass(frozen=True)
class Figure:
    """One measured number; less is better. `unit` is × where it is a ratio of medians.

    `target` None: it is shown for comparison only.
    """

    benchmark: str
    what: str
    value: float
    unit: str
    target: float | None = None
    detail: str = ""
    reached: float | None = None
    """What is reached where the target is not (docs/internals/benchmarks.md says why); --quick compares with it."""

    @property
    def met(self) -> bool:
        """Return whether the target is met."""
        return self.target is None or self.value <= self.target

    @property
    def gross(self) -> bool:
        """Return whether it is so far off that a busy machine does not explain it."""
        return self.target is not None and self.value > GROSS * max(self.target, self.reached or 0.0)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table in Markdown."""
    rows = ["| benchmark | what | found | wanted | |", "|---|---|---|---|---|"]
    for figure in figures:
        wanted = "" if figure.target is None else f"≤ {number(figure.target)} {figure.unit}"
        mark = "" if figure.target is None else "✓" if figure.met else "✗"
        detail = f" ({figure.detail})" if figure.detail else ""
        rows.append(
            f"| {figure.benchmark} | {figure.what} | {number(figure.value)} {figure.unit}{detail} | {wanted} | {mark} |"
        )
    return "\n".join(rows)


def number(value: float) -> str:
    """Format a number with three digits: 0.123, 1.23, 12.3, 123."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
