from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.remote.deployment import ray_temp
from tests.component.remote.living import Home, Household, household


@pytest.fixture
def people() -> Iterator[Household]:
    """Start processes; end them with the test."""
    with household() as people:
        yield people


@pytest.fixture
def deployment() -> str:
    """Provide a name that no other test, and no deployment on this machine, has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def home(tmp_path: Path, deployment: str) -> Iterator[Home]:
    home = Home(tmp_path, deployment)
    yield home
    for temporary in ray_temp.directories(deployment, home.host, {}):
        shutil.rmtree(temporary)
