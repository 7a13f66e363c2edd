"""Draw the figures that have a target: a bar for each, and a line at the target."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.figures import Figure, number

ROW, LABELS, UNIT, LONGEST = 22, 470, 160, 3.0
"""Pixels of a row, of its label and of the target; how many times the target the longest bar is."""


def plot(figures: Sequence[Figure]) -> str:
    """Return an SVG document."""
    shown = [figure for figure in figures if figure.target]
    width, height = int(LABELS + UNIT * LONGEST + 140), ROW * (len(shown) + 2)
    rows = [_row(figure, ROW * (at + 1)) for at, figure in enumerate(shown)]
    line = LABELS + UNIT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="{line}" y="14" text-anchor="middle">target (shorter is better)</text>',
            *rows,
            f'<line x1="{line}" x2="{line}" y1="18" y2="{height - ROW}" stroke="black" stroke-dasharray="4 3"/>',
            "</svg>\n",
        ]
    )


def _row(figure: Figure, top: int) -> str:
    assert figure.target
    length = min(figure.value / figure.target, LONGEST) * UNIT
    color = "#2e7d32" if figure.met else "#c62828"
    text = f"{number(figure.value)} {figure.unit} (≤ {number(figure.target)})"
    return (
        f'<text x="{LABELS - 6}" y="{top + 14}" text-anchor="end">{escape(figure.what)}</text>'
        f'<rect x="{LABELS}" y="{top + 3}" width="{length:.0f}" height="{ROW - 7}" fill="{color}"/>'
        f'<text x="{LABELS + length + 6:.0f}" y="{top + 14}">{escape(text)}</text>'
    )
