"""What all tests share: the fixtures of lab and environments, and the rule about skips.

A test that needs root is skipped without it, and says so. In CI (`CI` in the environment) nothing may be skipped: a
session with a skip fails.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest

from flagscale_deploy.support import interrupts
from tests.lab.permission import obstacle

pytest.register_assert_rewrite("tests.lab.faults.matrix", "tests.lab.faults.soak")
pytest_plugins = ("tests.lab.fixtures", "tests.lab.faults.report", "tests.environments.fixtures", "tests.parallel")


def pytest_configure() -> None:
    """Ignore no signal that a job of a shell, or `nohup`, ignores: the commands under test would as well."""
    for number in interrupts.SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collections, half of the time otherwise: what is made then lives with the session."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    of_the_lab = [item for item in items if item.get_closest_marker("lab")]
    reason = obstacle() if of_the_lab else None
    if reason is not None:
        for item in of_the_lab:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Restore the handlers of signals: a command that was typed within a test leaves some that end the process."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        return (yield)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def pytest_runtest_setup() -> None:
    interrupts._last = float("-inf")  # signals that come together are one interrupt: an earlier test's is another


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skips = _forbidden_skips(config)
    if skips:
        terminalreporter.section("skipped in CI", red=True)
        terminalreporter.line(f"{skips} skipped: in CI every test has to run, so this session fails; reasons above")


def _forbidden_skips(config: pytest.Config) -> int:
    """How many tests were skipped although CI is set."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    in_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return len(reporter.stats.get("skipped", ())) if in_ci and reporter is not None else 0
