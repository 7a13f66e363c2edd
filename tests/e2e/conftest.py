"""What takes too long for each change is run with FSD_FAULTS=all (`make faults`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.groups import WORKERS, Groups
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator

AT_LENGTH = ["test_groups_at_length.py", "test_groups_changed.py", "test_no_false_restart.py"]
collect_ignore = [] if os.environ.get("FSD_FAULTS") == "all" else AT_LENGTH


@pytest.fixture(scope="module")
def operator(lab: Lab, node_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Return who types commands about the hosts of a module's own `lab`, where vLLM is installed."""
    desk = tmp_path_factory.mktemp("desk")
    return Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))


@pytest.fixture(scope="module")
def groups(
    make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Groups]:
    """Provide two hosts with a GPU each, and who serves groups of ranks over both."""
    lab = make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model, WORKERS])
    desk = tmp_path_factory.mktemp("desk")
    operator = Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))
    yield Groups(lab, operator, tiny_model, forks=True)
    for running in operator.started:
        running.abandon()
