"""User pages are written in sentences of 25 words at most, and every page is on the site."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.docs.pages import PAGES, REPOSITORY, sentences

LONGEST = 25
USER_PAGES = [page for page in PAGES if not page.startswith("docs/internals/")]


@pytest.mark.parametrize("page", USER_PAGES)
def test_no_sentence_of_a_user_page_is_too_long(page: str) -> None:
    assert [text for text in sentences(PAGES[page]) if len(words(text)) > LONGEST] == []


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_][^\s]*", text)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("One two. Three `four five`, [six seven](eight.md)!\n", [2, 4]),
        ("# Title\n\n- one two\n- three:\n  four\n\n| a | b |\n|---|---|\n", [2, 2]),
        ("a\n```console\n$ b c d\n```\ne <!-- f --> g\n", [1, 2]),
        ("1. **One two.** Three\n2. four (five.) Six\n", [2, 1, 2, 1]),
    ],
)
def test_a_sentence_is_counted_without_code_and_tables(text: str, lengths: list[int]) -> None:
    assert [len(words(sentence)) for sentence in sentences(text)] == lengths


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_every_page_is_on_the_site_once() -> None:
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = [path for entry in config["nav"] for path in paths(entry)]
    assert sorted(listed) == sorted(page.removeprefix("docs/") for page in PAGES if page.startswith("docs/"))


def paths(entry: Any) -> list[str]:
    """Return the pages of an entry of the navigation: a path, or a title with a path or entries."""
    if isinstance(entry, str):
        return [entry]
    assert isinstance(entry, dict)
    (inside,) = entry.values()
    return [inside] if isinstance(inside, str) else [path for part in inside for path in paths(part)]
