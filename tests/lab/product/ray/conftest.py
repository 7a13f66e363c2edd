"""Three hosts with a GPU each and real Ray, and an operator; the engine is the stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments.build import mounts
from tests.lab import Lab
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import StandIn

collect_ignore = [] if os.environ.get("FSD_FAULTS") == "all" else ["test_ray_spare.py"]


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn, node_env: Path) -> Lab:
    return make_lab(hosts=3, gpus=1, mounts=[*mounts(node_env), *stand_in.mounts])


@pytest.fixture
def operator(lab: Lab, stand_in: StandIn, node_env: Path, tmp_path: Path) -> Iterator[Operator]:
    path = f'export PATH={stand_in.command}:"$PATH"'
    sits = Operator(tmp_path, lab.inventory(tmp_path / "hosts.yaml", venv=str(node_env), before_start=path))
    yield sits
    for running in sits.started:
        running.abandon()
