"""The rule about skips in `tests/conftest.py`, tried on a suite with one skipped test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SUITE = """
import pytest

def test_runs():
    pass

@pytest.mark.skip(reason="no time today")
def test_is_skipped():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "status", "processes"),
    [("true", 1, "0"), ("true", 1, "2"), ("1", 1, "0"), ("false", 0, "0"), ("", 0, "0"), ("", 0, "2")],
)
def test_a_skip_fails_the_session_in_ci_only(tmp_path: Path, ci: str, status: int, processes: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.conftest", "-n", processes]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=REPOSITORY,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert ("in CI every test has to run" in done.stdout) == bool(status)
    assert "1 passed, 1 skipped" in done.stdout
