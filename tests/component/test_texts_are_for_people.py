"""No code branches on a text that people read: it may be reworded without a thought for what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNCHANGED = (
    "tests/unit/checks/test_connectivity.py",
    "tests/unit/checks/test_models.py",
    "tests/unit/checks/test_one_fault.py",
    "tests/unit/checks/test_recorded.py",
    "tests/unit/checks/test_registry.py",
    "tests/unit/checks/test_scope.py",
    "tests/unit/checks/test_tls.py",
    "tests/component/deploy/test_network_test.py",
)
OF_OPTIONS = (
    "tests/unit/checks/test_registry.py::test_a_name_that_is_no_check_gets_the_nearest",
    "tests/unit/checks/test_registry.py::test_what_nothing_works_without_can_not_be_left_out",
)
"""These look at the texts of errors of the command line, which nothing makes readable again."""
BRANCHES = {
    "an error's": "'refused' in HostError('gpu01', 'login refused').problem",
    "an error's, as printed": "'refused' in str(HostError('gpu01', 'login refused'))",
    "a fault's": "Fault('gpu01', 'port 8000 is in use').problem.startswith('port')",
    "a finding's": "Finding('gpu01', 'a', 'a free port').expected == 'a free port'",
    "a link's": "Link('gpu01', 'gpu02', '10.0.0.2', 1, 'data', problem='timed out').problem == 'timed out'",
    "a link's use": "Link('gpu01', 'gpu02', '10.0.0.2', 1, 'data').use == 'data'",
    "a file's": "'pointer' in ModelFiles('/m', torn={'a': 'is a pointer'}).torn['a']",
}
IMPORTS = """
from flagscale_deploy.checks.types import Finding, Link
from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.facts.model import ModelFiles
"""


def pytest_with(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


def test_checks_and_links_do_the_same_where_texts_cannot_be_read() -> None:
    deselected = [word for name in OF_OPTIONS for word in ("--deselect", name)]
    done = pytest_with("-p", "tests.scrambled", *UNCHANGED, *deselected)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture
def branching(tmp_path: Path) -> Path:
    """Run tests that pass as long as texts can be read."""
    cases = [f"def test_{at}():\n    assert {branch}\n" for at, branch in enumerate(BRANCHES.values())]
    path = tmp_path / "test_branching.py"
    path.write_text("\n\n".join([IMPORTS, *cases]))
    return path


def test_a_branch_on_a_text_takes_another_way_then(branching: Path) -> None:
    words = ("--noconftest", "-o", "addopts=", str(branching))
    assert f"{len(BRANCHES)} passed" in pytest_with(*words).stdout
    assert f"{len(BRANCHES)} failed" in pytest_with("-p", "tests.scrambled", *words).stdout
