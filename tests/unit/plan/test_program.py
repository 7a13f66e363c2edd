"""Programs of the user's own: whether the GPUs that their tasks ask for are free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flagscale_deploy.config.program_files import load_program
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import FaultsError
from flagscale_deploy.facts.model import Facts
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import plan
from tests.unit.plan.given import RUN, TEMPLATES, facts, inventory

HOSTS = ("gpu01", "gpu02")


def inputs(folder: Path, observed: Mapping[str, Facts], skip: tuple[str, ...] = (), **tasks: float) -> Inputs:
    (folder / "app.py").write_text("")
    options = {name: {"num_gpus": wanted} for name, wanted in tasks.items()}
    serve = ServeSpec("app", (), entrypoint="app.py", source=str(folder / "app.yaml"), remote_options=options)
    return Inputs(inventory(*HOSTS), serve, observed, RUN, TEMPLATES, load_program(serve), skip=skip)


@pytest.mark.parametrize("wanted", [0, 0.5, 1, 2])
def test_a_task_that_fits_on_one_host_is_planned(tmp_path: Path, wanted: float) -> None:
    observed = {"gpu01": facts("gpu01", 2, busy=[0]), "gpu02": facts("gpu02", 2)}
    made = plan(inputs(tmp_path, observed, count=wanted))
    assert made.instances[0].gpus == {"gpu01": (1,), "gpu02": (0, 1)}


def test_a_task_that_no_host_has_free_gpus_for_is_refused(tmp_path: Path) -> None:
    observed = {"gpu01": facts("gpu01", 2, busy=[0]), "gpu02": facts("gpu02", 2, busy=[0, 1])}
    with pytest.raises(FaultsError) as raised:
        plan(inputs(tmp_path, observed, one=1, two=2, three=3))
    (two, three) = raised.value.faults
    assert two.problem.startswith("a task needs 2 GPUs of one host; free GPUs: gpu01 1, gpu02 0 (in use: gpu01 GPU 0: ")
    assert (two.check, three.check) == ("gpu-busy", "placement")
    assert "--force" in two.remedy
    assert two.where.endswith("deploy.models.two.num_gpus")


def test_busy_gpus_can_be_used(tmp_path: Path) -> None:
    observed = {name: facts(name, 2, busy=[0, 1]) for name in HOSTS}
    made = plan(inputs(tmp_path, observed, skip=("gpu-busy",), count=2))
    assert made.instances[0].gpus == {"gpu01": (0, 1), "gpu02": (0, 1)}


def test_a_part_of_a_gpu_needs_one(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match=r"a task needs 0\.5 GPUs of one host; free GPUs: gpu01 0, gpu02 0"):
        plan(inputs(tmp_path, {name: facts(name, 0) for name in HOSTS}, half=0.5))
