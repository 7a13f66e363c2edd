"""What the fault matrix and the soak found, told at the end of the session, wherever in it they ran.

A plugin of the whole session: the process that writes the summary is not the one that runs tests, where there are
several (pytest-xdist); those send it their lines.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.lab.faults.matrix import MATRIX, reasons, table

LINES = pytest.StashKey[list[str]]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    lines = _lines()
    session.config.stash.setdefault(LINES, []).extend(lines)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[__name__] = lines
    if MATRIX.outcomes and (target := os.environ.get("FSD_FAULTS_TABLE")):
        Path(target).write_text("\n".join([*table(MATRIX.outcomes), "", *reasons()]) + "\n")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(LINES, []).extend(getattr(node, "workeroutput", {}).get(__name__, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("fault matrix: exit status and seconds until the command had ended")
    for line in lines:
        terminalreporter.line(line)


def _lines() -> list[str]:
    lines = [MATRIX.soak] if MATRIX.soak else []
    if MATRIX.outcomes:
        passed = sum(each.passed for each in MATRIX.outcomes)
        lines += table(MATRIX.outcomes)
        lines += [f"{passed} of {len(MATRIX.outcomes)} cells passed; {MATRIX.chosen_by}"]
    return lines
