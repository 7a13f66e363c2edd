"""What the fault matrix and the soak found, told at the end of the session, wherever in it they ran.

A plugin of the whole session: the process that writes the summary is not the one that runs tests, where there are
several (pytest-xdist). It imports nothing of the matrix, which every session would wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

LINES = pytest.StashKey[list[str]]()


def tell(config: pytest.Config, lines: Sequence[str]) -> None:
    """Have lines written at the end of the session, by this process or by the one that started it."""
    all_lines = config.stash.setdefault(LINES, [])
    all_lines.extend(lines)
    if hasattr(config, "workeroutput"):
        config.workeroutput[__name__] = all_lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    tell(node.config, getattr(node, "workeroutput", {}).get(__name__, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("fault matrix (exit status and seconds until the command had ended) and soak")
    for line in lines:
        terminalreporter.line(line)
