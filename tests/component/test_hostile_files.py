"""Commands that only look, with files that are none, and with what the shell gives in place of a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOSTS, SERVE = ROOT / "inventories/hostfile.txt", ROOT / "examples/qwen2.5-7b.yaml"
COMMAND = f"{sys.executable} -m flagscale_deploy"


def typed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_text("a: &a [*a]\n")],
    ids=["FIFO", "device", "recursion"],
)
@pytest.mark.parametrize(
    "words",
    ["hosts -i x", f"plan --offline -i x -c {SERVE}", f"plan --offline -i {HOSTS} -c x", f"check -i {HOSTS} -c x"],
    ids=lambda words: words.replace(str(ROOT), ""),
)
def test_a_command_refuses_what_is_no_file(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    make(tmp_path / "x")
    result = typed(f"{COMMAND} {words}", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("✗ x")
    assert "internal error" not in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        f"{COMMAND} plan --offline -i <(cat {HOSTS}) -c <(cat {SERVE})",
        f"cat {SERVE} | {COMMAND} plan --offline -i {HOSTS} -c /dev/stdin",
        f"{COMMAND} plan --offline -i {HOSTS} -c /dev/stdin < {SERVE}",
    ],
    ids=["process substitution", "pipe", "redirection"],
)
def test_what_the_shell_gives_in_place_of_a_file_is_read(tmp_path: Path, line: str) -> None:
    result = typed(line, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Ray cluster" in result.stdout


def test_templates_of_a_user_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    escape = "{{ cycler.__init__.__globals__.os.system('touch ' ~ 'run') }}"
    (tmp_path / "templates/ray_head.sh.j2").write_text(escape, encoding="utf-8")
    result = typed(f"{COMMAND} plan --offline --templates templates -i {HOSTS} -c {SERVE}", tmp_path)
    assert result.returncode == 2, result.stderr
    assert "ray_head.sh.j2" in result.stderr
    assert not (tmp_path / "run").exists()
