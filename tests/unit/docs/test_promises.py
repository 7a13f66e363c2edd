"""Each promise of the security page names tests that are there."""

from __future__ import annotations

import re

from tests.docs.pages import PAGES, REPOSITORY

ROW = re.compile(r"^\| (?!what |---)([^|]+)\|[^|]+\|([^|]+)\|$", re.MULTILINE)


def test_every_promise_has_tests() -> None:
    promises = ROW.findall(PAGES["docs/security.md"])
    assert len(promises) > 20
    for promise, named in promises:
        paths = re.findall(r"`([\w/.]+)`", named)
        assert paths, promise
        assert [path for path in paths if not (REPOSITORY / "tests" / path).exists()] == [], promise
