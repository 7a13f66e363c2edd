"""Ray's own processes, killed: with Ray itself, where `test_matrix.py` has a stand-in for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments.build import mounts
from tests.lab import Lab
from tests.lab.faults.conftest import HOLD_RAY
from tests.lab.faults.faults import REAL_RAY_FAULTS
from tests.lab.faults.matrix import Cell, chosen, go_through
from tests.lab.faults.scene import Innocents, Scene, configuration
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import StandIn

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn, node_env: Path) -> Lab:
    return make_lab(hosts=2, gpus=1, mounts=[*mounts(node_env), *stand_in.mounts])


@pytest.fixture
def scene(lab: Lab, stand_in: StandIn, innocents: Innocents, node_env: Path, tmp_path: Path) -> Iterator[Scene]:
    before = [f'export PATH={stand_in.command}:"$PATH"', HOLD_RAY]
    inventory = lab.inventory(tmp_path / "hosts.yaml", venv=str(node_env), before_start="\n".join(before))
    made = Scene(lab, Operator(tmp_path, inventory), configuration(tmp_path / "matrix.yaml", "core,ray"))
    made.words += ["deploy.timeouts.ray=90"]
    made.kept["innocents"] = innocents
    yield made
    made.forget()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", chosen(REAL_RAY_FAULTS, 1), ids=lambda cell: cell.name)
def test_a_fault_of_ray(cell: Cell, scene: Scene, innocents: Innocents) -> None:
    go_through(cell, scene, innocents)
