"""Which Pythons the unit tests run under, and with which packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.environments import pythons

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_a_python_is_found_on_the_path_or_with_pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert pythons.find(OWN) is None
    installed = write(tmp_path / f".pyenv/versions/{OWN}.9/bin/python", f'exec {sys.executable} "$@"')
    assert pythons.find(OWN) == installed
    on_path = write(tmp_path / f"bin/python{OWN}", f'exec {sys.executable} "$@"')
    assert pythons.find(OWN) == on_path


@pytest.mark.parametrize("script", ["exit 127", "echo 3.7", "kill $$"])
def test_a_shim_without_its_python_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write(tmp_path / "bin/python3.12", script)
    assert pythons.find("3.12") is None


def test_hosts_get_test_tools_only() -> None:
    ours, hosts = pythons.requirements("3.12"), pythons.requirements("3.8")
    assert {"hypothesis", "pytest-xdist"} <= set(ours) & set(hosts)
    assert [line for line in ours if line.startswith(("pydantic", "click", "paramiko"))]
    assert not [line for line in hosts if line.startswith(("pydantic", "click", "paramiko"))]
    assert not [line for line in ours if line.startswith(("mypy", "ruff", "types-", "#"))]


def write(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
