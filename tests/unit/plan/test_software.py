from __future__ import annotations

from tests.unit.plan.given import facts, faults_of, inventory, model, planned, seen, spec

TWO = inventory("gpu01", "gpu02")
WIDE = spec(model(tp=16))


def test_ray_is_asked_of_its_nodes_and_vllm_of_every_host_of_an_instance() -> None:
    host_facts = {"gpu01": facts("gpu01", ray=None, vllm=None), "gpu02": facts("gpu02", ray=None, vllm=None)}
    faults = faults_of(TWO, WIDE, host_facts)
    assert [(fault.where, fault.problem) for fault in faults] == [
        ("gpu01", "Ray is not installed in its environment"),
        ("gpu02", "Ray is not installed in its environment"),
        ("gpu01", "vLLM is not installed in its environment"),
        ("gpu02", "vLLM is not installed in its environment"),
    ]
    assert all("set venv or before_start" in fault.remedy for fault in faults)


def test_nothing_is_asked_of_hosts_that_run_nothing() -> None:
    host_facts = {**seen("gpu01", ray=None), "gpu02": facts("gpu02", ray=None, vllm=None, python="3.9.1")}
    assert planned(TWO, spec(model(tp=8)), host_facts).instances[0].driver == "gpu01"


def test_the_host_whose_ray_differs_from_most_is_named() -> None:
    host_facts = {**seen("gpu02", "gpu03"), "gpu01": facts("gpu01", ray="2.60.1")}
    (fault,) = faults_of(inventory("gpu01", "gpu02", "gpu03"), spec(model(tp=24)), host_facts)
    assert (fault.where, fault.check) == ("gpu01", "same-ray")
    assert fault.problem == "Ray 2.60.1, but 2.60.0 on gpu02 and 1 more: it must be the same on all Ray nodes"
    assert fault.remedy == "on gpu01: pip install 'ray[default]==2.60.0'"


def test_where_no_version_is_what_most_have_those_that_differ_from_the_head_are_named() -> None:
    host_facts = {"gpu01": facts("gpu01", python="3.11.8"), "gpu02": facts("gpu02")}
    (fault,) = faults_of(TWO, WIDE, host_facts)
    assert (fault.where, fault.check) == ("gpu02", "same-python")
    assert fault.problem == "Python 3.11.7, but 3.11.8 on gpu01: it must be the same on all Ray nodes"
    (fault,) = faults_of(inventory("gpu01", "gpu02", head="gpu02"), WIDE, host_facts)
    assert fault.where == "gpu01"


def test_an_environment_that_does_not_start_hides_what_it_would_contain() -> None:
    broken = facts("gpu02", environment_error="venv/bin/activate: No such file", ray=None, vllm=None, python=None)
    (fault,) = faults_of(TWO, WIDE, {"gpu01": facts("gpu01"), "gpu02": broken})
    assert (fault.where, fault.problem, fault.remedy) == (
        "gpu02", "its environment does not start: venv/bin/activate: No such file", "correct venv or before_start",
    )  # fmt: skip
