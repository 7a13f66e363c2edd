"""Which tests run at the same time: whole modules, and never two of those that start Ray on several hosts.

A plugin for sessions with several processes (pytest-xdist, `--dist loadscope`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

RAY = (
    "tests/docs/test_commands_on_hosts.py",
    "tests/e2e/test_diagnoses.py",
    "tests/e2e/test_serve_remote.py",
    "tests/e2e/test_two_hosts.py",
    "tests/lab/product/test_ray.py",
)
"""Ray over several hosts: these follow each other in one process, since `ray start` gives up after 30 s.

The hosts share this machine's cores: two such modules at a time may take that long.
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `--dist loadscope`: modules, since their labs are theirs, in their order, and those with Ray as one."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # else those with many tests come first: the long ones have few
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return "with Ray" if module in RAY else module

    return Modules(config, log)
