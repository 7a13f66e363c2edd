"""The hooks of .pre-commit-config.yaml are the programs of `make lint`."""

from __future__ import annotations

import re

import yaml

from tests.unit.sources import ROOT


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].replace(" --fix", "") for hook in local["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    linted = re.findall(r"\$\(VENV\)/bin/(.*)", recipe[1])
    assert [f".venv/bin/{command.replace(' --check', '')}" for command in linted] == hooks
