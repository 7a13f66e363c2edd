"""Every example is planned for real hosts: two of eight GPUs each, with the environment that serves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import build
from tests.lab import Lab
from tests.lab.keepers import REPOSITORY
from tests.lab.product.operator import Operator

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

EXAMPLES = [*sorted((REPOSITORY / "examples").glob("*.yaml")), REPOSITORY / "examples/hydra/conf/config.yaml"]


@pytest.fixture(scope="module")
def operator(make_lab: Callable[..., Lab], node_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    lab = make_lab(hosts=2, gpus=8, mounts=build.mounts(node_env))
    desk = tmp_path_factory.mktemp("desk")
    return Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_planned_with_scripts_that_bash_reads(operator: Operator, example: Path, tmp_path: Path) -> None:
    plan = operator("plan", "-c", example, "--json", "-o", tmp_path / "scripts").json
    assert plan["instances"]
    taken = [(host, gpu) for instance in plan["instances"] for host, gpus in instance["gpus"].items() for gpu in gpus]
    assert len(taken) == len(set(taken))
    assert {host for host, _ in taken} <= {"node1", "node2"}
    scripts = sorted(str(path) for path in (tmp_path / "scripts").rglob("*.sh"))
    assert len(scripts) == sum(len(host_scripts) for host_scripts in plan["scripts"].values()) > 0
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
