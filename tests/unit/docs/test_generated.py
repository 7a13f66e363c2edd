"""The parts of the pages that come from the code are those of today's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import PARTS, names, pages, renewed

AGAIN = "write it anew: .venv/bin/python -m docs.generate"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_generated_parts_of_a_page_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == renewed(text), AGAIN


def test_every_part_is_in_one_page() -> None:
    assert sorted(name for page in pages() for name in names(page.read_text(encoding="utf-8"))) == sorted(PARTS)


def test_a_part_that_differs_is_written_anew() -> None:
    text = "before\n<!-- generated: checks -->\nold\n<!-- end -->\nafter\n"
    assert renewed(text) != text
    assert renewed(renewed(text)) == renewed(text)
    assert renewed(text).startswith("before\n")
    assert renewed(text).endswith("<!-- end -->\nafter\n")
