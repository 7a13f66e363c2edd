"""`deploy.executor`, and what it means together with `deploy.ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.spec import ServeSpec
from tests.unit.config.files import faults, load

MODEL = "model_args: {m: {model: /m}}\n"


def read(folder: Path, keys: str, *overrides: str) -> ServeSpec:
    return load(f"{MODEL}deploy: {{{keys}}}", *overrides, folder=folder)


@pytest.mark.parametrize(
    ("keys", "executor", "ray"),
    [
        ("", "ray", "on"),
        ("executor: null", "ray", "on"),
        ("executor: ray", "ray", "on"),
        ("executor: mp", "mp", "auto"),
        ("executor: MP", "mp", "auto"),
        ("executor: auto", "auto", "auto"),
        ("executor: mp, ray: always", "mp", "on"),
        ("executor: mp, ray: {port: 7000}", "mp", "auto"),
        ("executor: mp, ray: {mode: on}", "mp", "on"),
        ("executor: ray, ray: auto", "ray", "auto"),
        ("ray: never", "mp", "off"),
        ("ray: off", "mp", "off"),
        ("ray: {mode: off}", "mp", "off"),
        ("executor: auto, ray: off", "mp", "off"),
        ("executor: mp, ray: off", "mp", "off"),
    ],
)
def test_what_is_meant(tmp_path: Path, keys: str, executor: str, ray: str) -> None:
    spec = read(tmp_path, keys)
    assert (spec.executor, spec.ray.mode) == (executor, ray)


DATA = "data-parallel-size: 16"


@pytest.mark.parametrize(
    ("flags", "deploy", "executor", "ray"),
    [
        (DATA, "{}", "ray", "auto"),
        (DATA, "{ray: always}", "ray", "on"),
        (DATA, "{executor: ray}", "ray", "on"),
        (f"{DATA}, data-parallel-backend: ray", "{}", "ray", "on"),
        (f"{DATA}, distributed-executor-backend: ray", "{}", "ray", "on"),
        ("data-parallel-size: 1", "{}", "ray", "on"),
        ("distributed-executor-backend: mp", "{}", "ray", "auto"),
        ("seed: 1", f"{{models: {{m: {{prefill: {{engine_args: {{{DATA}}}}}, decode: {{}}}}}}}}", "ray", "auto"),
    ],
)
def test_a_model_that_joins_its_hosts_without_ray_does_without(
    tmp_path: Path, flags: str, deploy: str, executor: str, ray: str
) -> None:
    """A model beside it, or a program, that needs Ray gets it: see tests/unit/plan/test_ray.py on `auto`."""
    spec = load(f"model_args: {{m: {{model: /m, {flags}}}}}\ndeploy: {deploy}", folder=tmp_path)
    assert (spec.executor, spec.ray.mode) == (executor, ray)


def test_ray_keeps_its_port_where_its_mode_follows_the_executor(tmp_path: Path) -> None:
    assert read(tmp_path, "executor: mp, ray: {port: 7000}").ray.port == 7000


def test_an_override_sets_it(tmp_path: Path) -> None:
    assert read(tmp_path, "ray: auto", "deploy.executor=mp").executor == "mp"
    assert load(MODEL, "experiment.deploy.executor=mp", folder=tmp_path).executor == "mp"


@pytest.mark.parametrize("word", ["rai", "true", "3", "[mp]", "{mode: mp}"])
def test_another_word_is_a_fault(tmp_path: Path, word: str) -> None:
    (fault,) = faults(f"{MODEL}deploy: {{executor: {word}}}", folder=tmp_path)
    assert fault.startswith("qwen.yaml: deploy.executor: ")
    assert "expected ray, mp or auto" in fault


@pytest.mark.parametrize("ray", ["off", "never", "{mode: off}"])
def test_ray_that_is_off_joins_no_hosts(tmp_path: Path, ray: str) -> None:
    (fault,) = faults(f"{MODEL}deploy: {{executor: ray, ray: {ray}}}", folder=tmp_path)
    assert fault == ("qwen.yaml: deploy.executor: is ray, but deploy.ray is off\n    → set executor: mp, or ray: auto")


def test_it_is_part_of_what_is_public(tmp_path: Path) -> None:
    assert read(tmp_path, "executor: mp").public()["executor"] == "mp"
