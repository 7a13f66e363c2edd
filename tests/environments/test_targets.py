"""What the make targets need and run."""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.unit.sources import ROOT


def recipe(target: str) -> str:
    """Return the commands of a target and of all that it needs, as if nothing had been built."""
    words = ["make", "--dry-run", "--always-make", target]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_lint_and_unit_tests_need_the_virtual_environment_alone() -> None:
    of_machine, of_hosts = "environments/system.py", "environments/build.py node"
    alone, whole = recipe("check"), recipe("test")
    assert "-m venv --clear" in alone
    assert of_machine not in alone
    assert of_hosts not in alone
    assert whole.index(of_machine) < whole.index("-m venv --clear") < whole.index(of_hosts)


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(" --fix", "") for hook in local["hooks"]]
    linted = re.findall(r" (\.venv/bin/(?:ruff|mypy).*)", recipe("lint"))
    assert [command.replace(" --check", "") for command in linted] == hooks
