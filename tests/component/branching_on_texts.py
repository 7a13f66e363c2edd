"""Tests that pass as long as texts can be read: `test_texts_are_for_people.py` runs them, with and without texts."""

from __future__ import annotations

from flagscale_deploy.checks.types import Finding, Link
from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.facts.model import ModelFiles


def test_an_errors() -> None:
    assert "refused" in HostError("gpu01", "login refused").problem


def test_an_errors_as_printed() -> None:
    assert "refused" in str(HostError("gpu01", "login refused"))


def test_a_faults() -> None:
    assert Fault("gpu01", "port 8000 is in use").problem.startswith("port")


def test_a_findings() -> None:
    assert Finding("gpu01", "port 8000 is in use", "a free port").expected == "a free port"


def test_a_links() -> None:
    link = Link("gpu01", "gpu02", "10.0.0.2", 1, "data", problem="timed out")
    assert link.problem == "timed out"


def test_what_a_link_is_for() -> None:
    link = Link("gpu01", "gpu02", "10.0.0.2", 1, "data")
    assert link.use == "data"


def test_a_files() -> None:
    assert "pointer" in ModelFiles("/models/qwen", torn={"a": "is a pointer"}).torn["a"]
