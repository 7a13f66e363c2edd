"""Which tests run at the same time: whole modules, and never two of those that keep both cores busy.

A plugin for sessions with several processes (pytest-xdist).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

HEAVY = ("tests/docs/", "tests/e2e/")
"""Real vLLM and real Ray are started over and over here: these modules follow each other in one process."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `--dist loadscope`: modules, since their labs are theirs, in their order, and the heavy ones as one."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # else those with many tests come first: the heavy ones have few
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "heavy" if nodeid.startswith(HEAVY) else nodeid.partition("::")[0]

    return Modules(config, log)
