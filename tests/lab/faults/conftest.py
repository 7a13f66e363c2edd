"""A lab for the fault matrix, and what is told of it at the end of the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.lab.faults.matrix import MATRIX, reasons, table
from tests.lab.faults.report import tell
from tests.lab.faults.scene import Innocents, Scene, configuration
from tests.lab.product import stand_in as stand_ins
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import StandIn

HERE = Path(__file__).parent
collect_ignore = [] if os.environ.get("FSD_FAULTS") == "all" else ["test_wide_group.py"]
HOLD_RAY = (
    'case "$0" in *ray_worker*) : >/dev/shm/hold-ray-reached;'
    " while [ -e /dev/shm/hold-ray ]; do sleep 0.05; done; rm -f /dev/shm/hold-ray-reached ;; esac"
)
"""Shell that holds the script that starts a worker's Ray, and no other: before_start is run by the probe as well."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if MATRIX.notes:
        tell(session.config, MATRIX.notes)
    if not MATRIX.outcomes:
        return
    rows = table(MATRIX.outcomes)
    passed = sum(outcome.passed for outcome in MATRIX.outcomes)
    tell(session.config, [*rows, f"{passed} of {len(MATRIX.outcomes)} cells passed; {MATRIX.chosen_by}"])
    if target := os.environ.get("FSD_FAULTS_TABLE"):
        Path(target).write_text("\n".join([*rows, "", *reasons()]) + "\n")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Provide an environment with stand-ins for vLLM and for Ray."""
    made = stand_ins.build(tmp_path_factory.mktemp("stand-in"), vllm="0.32.0")  # new enough for groups of ranks
    packages = next((made.environment / "lib").glob("python*")) / "site-packages"
    shutil.copytree(HERE / "ray_package", packages / "ray", ignore=shutil.ignore_patterns("__pycache__"))
    program = made.environment / "bin/ray"
    program.write_text("#!/usr/bin/env python3\n" + (HERE / "ray_stand_in.py").read_text())
    program.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=2, gpus=1, mounts=stand_in.mounts)


@pytest.fixture(scope="module")
def innocents(lab: Lab) -> Innocents:
    """Provide processes on both hosts that must outlive everything."""
    made = Innocents(lab)
    for index in range(len(lab.hosts)):
        made.start(index)
    return made


@pytest.fixture
def scene(lab: Lab, stand_in: StandIn, innocents: Innocents, tmp_path: Path) -> Iterator[Scene]:
    for host in lab.hosts:
        if not host.alive:  # as a cell that failed has left it
            innocents.start(lab.power_on(host.index).index)
    inventory = lab.inventory(tmp_path / "hosts.yaml", venv=str(stand_in.environment), before_start=HOLD_RAY)
    made = Scene(lab, Operator(tmp_path, inventory), configuration(tmp_path / "matrix.yaml", {"ray": "on"}))
    made.kept["innocents"] = innocents
    yield made
    made.forget()
