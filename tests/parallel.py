"""Which tests run at the same time, and which ones first: whole modules, and never two that start Ray on several hosts.

A plugin for sessions with several processes (pytest-xdist, `--dist loadscope`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from tests.environments.pythons import SWEEPS

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

RAY = ("tests/e2e/test_diagnoses.py", "tests/e2e/test_serve_remote.py", "tests/e2e/test_two_hosts.py")
"""Ray over several hosts, and vLLM over Ray: these follow each other in one process."""
WITH_STAND_INS = ("tests/docs/test_commands_on_hosts.py", "tests/lab/product/ray/test_ray.py")
"""Ray over several hosts without vLLM: these come last in the process of the other modules with vLLM."""
ALONE = (*RAY, WITH_STAND_INS[-1])
"""None of these runs at the same time as another: `ray start` gives up after 30 s, and three hosts share these cores.

Whichever process comes second waits.
"""
_TURN = os.open(__file__, os.O_RDONLY)
"""What a process locks that runs one of these; with the process, the lock goes as well."""
E2E = "tests/e2e/"
"""The other modules with real vLLM follow each other as well: loading takes all of a core."""
WITHOUT_ENGINE = (
    "tests/e2e/test_engine_arguments.py",
    "tests/e2e/test_examples.py",
    "tests/e2e/test_router_parser.py",
    "tests/e2e/test_vllm_parser.py",
)
"""These import vLLM or plan for it, and start no engine: each goes where there is room."""
LONG = (
    *WITHOUT_ENGINE,
    "tests/lab/",
    "tests/component/support/test_platform.py",
    "tests/component/push/test_hostile.py",
    *(f"tests/unit/{sweep}" for sweep in SWEEPS),
)
"""What takes tens of seconds; a session that ends with such a module ends with one process at work."""


def scope(nodeid: str) -> str:
    """Return what a test is run with, one after the other in one process: its module, or several modules."""
    module = nodeid.partition("::")[0]
    if module in RAY:
        return "with Ray"
    if module in WITH_STAND_INS or (module.startswith(E2E) and module not in WITHOUT_ENGINE):
        return "with vLLM"
    return module


def rank(nodeid: str) -> tuple[int, int]:
    """Return when a test comes, the lowest first: modules with Ray, which take longest, with vLLM, and what is long."""
    place, module = scope(nodeid), nodeid.partition("::")[0]
    if place == "with vLLM":
        return 1, WITH_STAND_INS.index(module) + 1 if module in WITH_STAND_INS else 0
    return (0 if place == "with Ray" else 2 if place.startswith(LONG) else 3), 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Let a module wait for those of another process that do not run beside it, before the time of a test begins."""
    if _is_alone(item) and hasattr(item.config, "workerinput"):
        fcntl.flock(_TURN, fcntl.LOCK_EX)
    try:
        return (yield)
    finally:
        if not _is_alone(nextitem):
            fcntl.flock(_TURN, fcntl.LOCK_UN)


def _is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.nodeid.partition("::")[0] in ALONE


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `--dist loadscope`: modules, since their labs are theirs, in our order; those with Ray or vLLM as one."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # else those with many tests come first: the long ones have few
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Modules(config, log)
