"""What benchmarks say of their figures."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.figures import Figure, number, table
from benchmarks.plot import plot

WELL = Figure("stop", "two hosts", 2.0, "s", 3.0, "1.9 to 2.1")
BADLY = Figure("stop", "eight / two & more", 9.0, "×", 1.5)
UNREACHED = Figure("fan-out", "scripts", 2.6, "×", 1.25, reached=2.6)
SHOWN = Figure("fan-out", "true", 0.5, "s")


@pytest.mark.parametrize(
    ("figure", "met", "gross"),
    [(WELL, True, False), (BADLY, False, True), (UNREACHED, False, False), (SHOWN, True, False)],
)
def test_a_figure_is_held_against_its_target(figure: Figure, met: bool, gross: bool) -> None:
    assert (figure.met, figure.gross) == (met, gross)


def test_the_table_has_a_row_for_each() -> None:
    rows = table([WELL, BADLY, SHOWN]).splitlines()[2:]
    assert rows == [
        "| stop | two hosts | 2 s (1.9 to 2.1) | ≤ 3 s | ✓ |",
        "| stop | eight / two & more | 9 × | ≤ 1.5 × | ✗ |",
        "| fan-out | true | 0.5 s |  |  |",
    ]


def test_the_plot_is_svg_with_a_bar_for_each_target() -> None:
    root = ElementTree.fromstring(plot([WELL, BADLY, SHOWN]))
    assert len(root.findall("{*}rect")) == 1 + 2
    assert "eight / two & more" in [element.text for element in root.findall("{*}text")]


@pytest.mark.parametrize(("value", "shown"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")])
def test_numbers_have_no_more_digits_than_they_mean(value: float, shown: str) -> None:
    assert number(value) == shown
