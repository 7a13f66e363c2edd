"""The types of messages hold both sides to the same words: a key that is renamed on one side fails the type check."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

RENAMED = [
    ("remote/programs/archive.py", "older"),
    ("remote/programs/change_record.py", "taken"),
    ("remote/programs/chat.py", "answer"),
    ("remote/programs/cleanup.py", "removed"),
    ("remote/programs/drain.py", "requests"),
    ("remote/programs/follow.py", "lines"),
    ("remote/programs/history.py", "events"),
    ("remote/programs/inspect.py", "live"),
    ("remote/programs/install_boot_entry.py", "by"),
    ("remote/programs/internal_key.py", "key"),
    ("remote/programs/launch.py", "start_ticks"),
    ("remote/programs/lock.py", "displaced"),
    ("remote/programs/network_test.py", "tried"),
    ("remote/programs/parse_flags.py", "broken"),
    ("remote/programs/permit_restarts.py", "permitted"),
    ("remote/programs/probe.py", "default_address"),
    ("remote/programs/ps.py", "left_out"),
    ("remote/programs/push_host.py", "needed"),
    ("remote/programs/push_source.py", "digests"),
    ("remote/programs/reserve.py", "taken"),
    ("remote/programs/route.py", "workers"),
    ("remote/programs/route_gate.py", "problem"),
    ("remote/programs/serving.py", "foreign"),
    ("remote/programs/stop.py", "survivors"),
    ("remote/programs/stop_group.py", "killed"),
    ("remote/programs/unlock.py", "filesystem"),
    ("remote/programs/watch.py", "timed_out"),
    ("remote/programs/watch_ranks.py", "still"),
    ("remote/deployment/terminate.py", "signalled"),
    ("remote/deployment/scripts.py", "boot_id"),
    ("remote/engine/ray_nodes.py", "why"),
    ("remote/engine/model_files.py", "torn"),
    ("remote/supervisor/supervise.py", "in_a_row"),
    ("remote/system/gpus.py", "memory_used_mib"),
    ("deploy/gate.py", "remove"),
    ("deploy/group_acts.py", "remove"),
    ("deploy/change_note.py", "step"),
    ("deploy/launch.py", "session"),
    ("deploy/lock.py", "lease"),
    ("deploy/probe_hosts.py", "tls_files"),
    ("deploy/records.py", "local_url"),
    ("deploy/stop.py", "ray_grace"),
    ("logs/collect.py", "max_size"),
]
"""A module, and a key of a message that it writes."""


def check(tree: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    """Check modules of a copy of the package, with what they import."""
    paths = [f"flagscale_deploy/{module}" for module in modules]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *paths], cwd=tree, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a copy of the package that the type checker has found well, and its cache."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "flagscale_deploy", copy / "flagscale_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy)
    result = check(copy, *dict.fromkeys(module for module, _ in RENAMED))
    assert result.returncode == 0, result.stdout
    return copy


@pytest.fixture
def rename(tree: Path) -> Iterator[Rename]:
    with Rename(tree) as renaming:
        yield renaming


class Rename:
    """Renames keys in modules of a copy; puts them back in the end."""

    def __init__(self, tree: Path) -> None:
        self._tree, self._before = tree, dict[Path, bytes]()

    def __enter__(self) -> Rename:
        return self

    def __exit__(self, *_: object) -> None:
        for path, content in self._before.items():
            path.write_bytes(content)

    def __call__(self, module: str, key: str) -> int:
        """Rename a key wherever the module writes it in a dictionary; how often that was."""
        path = self._tree / "flagscale_deploy" / module
        self._before[path] = path.read_bytes()
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        shown = [node for node in ast.walk(ast.parse("".join(lines))) if isinstance(node, ast.Dict)]
        keys = [
            constant
            for node in shown
            for constant in node.keys
            if isinstance(constant, ast.Constant) and constant.value == key
        ]
        for constant in keys:
            lines[constant.lineno - 1] = lines[constant.lineno - 1].replace(f'"{key}"', f'"{key}_"')
        path.write_text("".join(lines), encoding="utf-8")
        return len(keys)


@pytest.mark.parametrize(("module", "key"), RENAMED)
def test_a_key_that_is_renamed_on_one_side_fails_the_type_check(
    rename: Rename, tree: Path, module: str, key: str
) -> None:
    assert rename(module, key)
    result = check(tree, module)
    assert result.returncode == 1
    assert f"flagscale_deploy/{module}:" in result.stdout, result.stdout


def test_every_host_program_has_a_key_that_is_tried() -> None:
    programs = {path.stem for path in (ROOT / "flagscale_deploy/remote/programs").glob("*.py")} - {"__init__"}
    tried = {Path(module).stem for module, _ in RENAMED if module.startswith("remote/")}
    assert programs - tried == set()


def python_3_8() -> str | None:
    """Return a Python 3.8 of this machine that runs (a shim of pyenv need not), None where there is none."""
    kept = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))
    for path in filter(None, [shutil.which("python3.8"), *map(str, kept)]):
        ended = subprocess.run([path, "-c", ""], capture_output=True, timeout=60, check=False)
        if ended.returncode == 0:
            return path
    return None


def test_the_messages_can_be_imported_under_python_3_8() -> None:
    python = python_3_8()
    if python is None:
        pytest.skip("there is no Python 3.8 here")
    names = [path.stem for path in (ROOT / "flagscale_deploy/remote/messages").glob("*.py") if path.stem != "__init__"]
    code = "".join(f"import flagscale_deploy.remote.messages.{name}\n" for name in sorted(names))
    ended = subprocess.run(
        [python, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
