"""The README's way to install, in an empty home: a clone, pip, the command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.readme import REPOSITORY, Command, console_blocks
from tests.docs.workplace import Workplace

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_what_the_readme_says_installs_the_command(tmp_path: Path) -> None:
    (block,) = console_blocks("install")
    clone = copy_of_the_clone(tmp_path / "clone")
    work = Workplace(tmp_path / "work")
    lines = "\n".join(["set -e", f"cd {clone}", *(command.line for command in block.commands)])
    printed = work.type(lines, PIP_QUIET="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONPATH="", **pip_cache())
    assert Command("", block.commands[-1].output).prints(printed)
    installed = work.home / "flagscale-deploy/bin/flagscale-deploy"
    offline = "plan --offline -i inventories/hostfile.txt -c examples/qwen2.5-7b.yaml"
    assert "ray_head.sh" in work.type(f"{installed} {offline}", PYTHONPATH="")


def copy_of_the_clone(to: Path) -> Path:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to / name)
    return to


def pip_cache() -> dict[str, str]:
    """pip's own cache, which an empty home would hide."""
    found = subprocess.run(["python3", "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    return {"PIP_CACHE_DIR": found.stdout.strip()} if found.returncode == 0 else {}
