"""Each way to install that a page shows, in an empty home: a clone, the installer, the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY, Block, Command, console_blocks
from tests.docs.workplace import Workplace

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OFFLINE = "flagscale-deploy plan --offline -i inventories/hostfile.txt -c examples/qwen2.5-7b.yaml"

QUICK = {"PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
"""Compiling all of what is installed takes as long as installing it."""


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a directory with pipx and uv, as people have them."""
    directory = tmp_path_factory.mktemp("installers")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    install = [f"{directory}/bin/pip", "install", "-qq", "--no-compile", "--disable-pip-version-check", "pipx", "uv"]
    subprocess.run(install, check=True)
    return directory / "bin"


@pytest.mark.parametrize("block", console_blocks("install"), ids=str)
def test_what_a_page_says_installs_the_command(block: Block, installers: Path, tmp_path: Path) -> None:
    clone = copy_of_the_clone(tmp_path / "clone")
    work = Workplace(tmp_path / "work")
    *before, last = block.commands
    lines = ["set -e", f"cd {clone}", "{", *(command.line for command in before), "} >&2", last.line]
    path = f"{work.home}/.local/bin:{work.home}/flagscale-deploy/bin:{installers}:/usr/local/bin:/usr/bin:/bin"
    variables = {**index(), **QUICK, "PYTHONPATH": "", "PATH": path}
    assert Command("", last.output).prints(work.type("\n".join(lines), **variables))
    assert "ray_head.sh" in work.type(OFFLINE, **variables)


def test_every_installer_is_shown() -> None:
    lines = "\n".join(command.line for block in console_blocks("install") for command in block.commands)
    assert [name in lines for name in ("pipx install .", "uv tool install .", "pip install .")] == [True] * 3


def copy_of_the_clone(to: Path) -> Path:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to / name)
    return to


def index() -> dict[str, str]:
    """How this machine's installers reach their index and its cache, which an empty home would hide."""
    names = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "NO_PROXY")
    given = {name: value for name, value in os.environ.items() if name.upper().startswith(names)}
    cache = subprocess.run(["python3", "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    return given | ({"PIP_CACHE_DIR": cache.stdout.strip()} if cache.returncode == 0 else {})
