"""Which tests run at the same time, and which ones first: whole modules, and never two that start Ray on several hosts.

A plugin for sessions with several processes (pytest-xdist, `--dist loadscope`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.environments.pythons import SWEEPS

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

RAY = (
    "tests/docs/test_commands_on_hosts.py",
    "tests/e2e/test_diagnoses.py",
    "tests/e2e/test_serve_remote.py",
    "tests/e2e/test_two_hosts.py",
    "tests/lab/product/ray/test_ray.py",
)
"""Ray over several hosts: these follow each other in one process, since `ray start` gives up after 30 s."""
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
    "tests/component/push/test_hostile.py",
    *(f"tests/unit/{sweep}" for sweep in SWEEPS),
)
"""What takes tens of seconds; a session that ends with such a module ends with one process at work."""


def scope(nodeid: str) -> str:
    """Return what a test is run with, one after the other in one process: its module, or several modules."""
    module = nodeid.partition("::")[0]
    if module in RAY:
        return "with Ray"
    return "with vLLM" if module.startswith(E2E) and module not in WITHOUT_ENGINE else module


def rank(nodeid: str) -> int:
    """Return when a test comes, the lowest first: modules with Ray, which take longest, with vLLM, and what is long."""
    place = scope(nodeid)
    return {"with Ray": 0, "with vLLM": 1}.get(place, 2 if place.startswith(LONG) else 3)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


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
