from __future__ import annotations

from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")
WIDE = spec(model(tp=16))


def test_ray_is_asked_of_its_nodes_and_vllm_of_drivers() -> None:
    known = {"gpu01": facts("gpu01", ray=None, vllm=None), "gpu02": facts("gpu02", ray=None, vllm=None)}
    faults = faults_of(TWO, WIDE, known)
    assert [(fault.where, fault.problem) for fault in faults] == [
        ("gpu01", "Ray is not installed in its environment"),
        ("gpu02", "Ray is not installed in its environment"),
        ("gpu01", "vLLM is not installed in its environment"),
    ]
    assert all("set venv or before_start" in fault.remedy for fault in faults)


def test_nothing_is_asked_of_hosts_that_run_nothing() -> None:
    known = {**seen("gpu01", ray=None), "gpu02": facts("gpu02", ray=None, vllm=None, python="3.9.1")}
    assert planned(TWO, spec(model(tp=8)), known).instances[0].driver == "gpu01"


def test_ray_versions_must_be_the_same_everywhere() -> None:
    (fault,) = faults_of(TWO, WIDE, {"gpu01": facts("gpu01"), "gpu02": facts("gpu02", ray="2.60.1")})
    assert (fault.where, fault.problem) == (
        "Ray version", "must be the same on all Ray nodes; found: gpu01 2.60.0, gpu02 2.60.1",
    )  # fmt: skip


def test_pythons_patch_level_matters_to_ray() -> None:
    (fault,) = faults_of(TWO, WIDE, {"gpu01": facts("gpu01"), "gpu02": facts("gpu02", python="3.11.8")})
    assert fault.problem == "must be the same on all Ray nodes; found: gpu01 3.11.7, gpu02 3.11.8"


def test_an_environment_that_does_not_start_hides_what_it_would_contain() -> None:
    broken = facts("gpu02", environment_error="venv/bin/activate: No such file", ray=None, vllm=None, python=None)
    (fault,) = faults_of(TWO, WIDE, {"gpu01": facts("gpu01"), "gpu02": broken})
    assert (fault.where, fault.problem, fault.remedy) == (
        "gpu02", "its environment does not start: venv/bin/activate: No such file", "correct venv or before_start",
    )  # fmt: skip
