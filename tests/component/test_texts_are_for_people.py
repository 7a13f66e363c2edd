"""No code branches on a text that people read, so that any text may be reworded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.component import branching_on_texts
from tests.component.deploy import test_network_test
from tests.unit import checks
from tests.unit.checks import test_any_facts, test_registry

ROOT = Path(__file__).parents[2]
UNCHANGED = (*sorted(Path(checks.__path__[0]).glob("test_*.py")), Path(test_network_test.__file__))
"""The tests of checks and of connections between hosts."""
OF_OPTIONS = (
    test_registry.test_a_name_that_is_no_check_gets_the_nearest,
    test_registry.test_what_nothing_works_without_can_not_be_left_out,
)
"""Tests of errors of the command line, whose texts stay scrambled."""


def pytest_with(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


def test_checks_and_links_do_the_same_where_texts_cannot_be_read() -> None:
    deselected = [f"--deselect=tests/unit/checks/test_registry.py::{test.__name__}" for test in OF_OPTIONS]
    left_out = f"--ignore={test_any_facts.__file__}"  # it is about no text, and slow
    done = pytest_with("-p", "tests.scrambled", left_out, *deselected, *map(str, UNCHANGED))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_a_branch_on_a_text_takes_another_way_then() -> None:
    words = ("--noconftest", "-o", "addopts=", branching_on_texts.__file__)
    count = len([name for name in vars(branching_on_texts) if name.startswith("test_")])
    assert f"{count} passed" in pytest_with(*words).stdout
    assert f"{count} failed" in pytest_with("-p", "tests.scrambled", *words).stdout
