"""What `make dist` builds, and the wheel in an environment that has nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from flagscale_deploy import __version__
from tests.unit.sources import ROOT

BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
"""As pyproject.toml has it; `make dist` leaves this to `build`, which fetches setuptools anew."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and source distribution of what git would commit; the wheel is built from the source distribution."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", BUILD_SDIST, str(built)], cwd=source, check=True, capture_output=True)
    (archive,) = built.iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(built)]
    subprocess.run([*pip, str(archive)], check=True, capture_output=True)
    return built


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the folder of programs of an environment into which only the wheel was installed."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (wheel,) = dist.glob("*.whl")
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    return environment / "bin"


def test_the_version_stands_in_one_place(dist: Path, installed: Path) -> None:
    names = {path.name for path in dist.iterdir()}
    assert names == {f"flagscale_deploy-{__version__}-py3-none-any.whl", f"flagscale_deploy-{__version__}.tar.gz"}
    assert run(installed, dist, "--version") == f"flagscale-deploy, version {__version__}\n"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__


def test_the_wheel_plans_without_a_host(installed: Path, tmp_path: Path) -> None:
    inventory, config = ROOT / "inventories/hostfile.txt", ROOT / "examples/qwen2.5-72b-two-hosts.yaml"
    words = ["plan", "--offline", "-i", str(inventory), "-c", str(config), "-o", "scripts"]
    assert "ray_head.sh" in run(installed, tmp_path, *words)
    scripts = {path.name for path in (tmp_path / "scripts").rglob("*.sh")}
    assert {"ray_head.sh", "ray_worker.sh", "vllm_serve_vllm_model_0.sh"} <= scripts


def test_a_clone_runs_its_own_code_and_templates_beside_an_installed_wheel(installed: Path) -> None:
    """`python -m flagscale_deploy` in a clone imports the clone, whose templates lie at its top level."""
    words = ["-i", "inventories/hostfile.txt", "-c", "examples/qwen2.5-72b-two-hosts.yaml"]
    command = [str(installed / "python"), "-m", "flagscale_deploy", "plan", "--offline", "--scripts", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ray start" in done.stdout


def test_the_wheel_holds_every_package_template_and_table(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        *(str(path.relative_to(ROOT)) for path in (ROOT / "flagscale_deploy").rglob("*.py")),
        *(f"flagscale_deploy/templates/{path.name}" for path in (ROOT / "templates").glob("*.j2")),
        "flagscale_deploy/diagnosis/signatures.yaml",
        "flagscale_deploy/py.typed",
    }
    assert wanted <= held


def test_the_source_distribution_has_what_the_wheel_is_built_from(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    templates = {f"templates/{path.name}" for path in (ROOT / "templates").glob("*.j2")}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", *templates} <= held


def run(programs: Path, place: Path, *words: str) -> str:
    """Return what the installed program prints, without access to this clone or the environment of the tests."""
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(place), "LANG": os.environ.get("LANG", "C.UTF-8")}
    command = [str(programs / "flagscale-deploy"), *words]
    return subprocess.run(command, cwd=place, env=env, check=True, capture_output=True, text=True, timeout=60).stdout
