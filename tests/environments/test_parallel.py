"""How `tests/parallel.py` shares modules out, tried on a suite that tells which process ran what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.keepers import REPOSITORY
from tests.parallel import E2E, LONG, RAY, WITHOUT_ENGINE, scope

MODULE = """
import os, pytest, time

@pytest.mark.parametrize("at", range(4))
def test_is_told(at):
    with open({told!r}, "a") as file:
        file.write({name!r} + " " + os.environ["PYTEST_XDIST_WORKER"] + "\\n")
    time.sleep(0.1 * {ray})
"""


def run(tmp_path: Path, names: list[str]) -> list[list[str]]:
    """Run a suite with these modules in two processes; return module and process of each test as they began."""
    record_file = tmp_path / "told"
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        ray = name in RAY
        (tmp_path / name).write_text(MODULE.format(told=str(record_file), name=name, ray=ray))
    options = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.parallel", "-n", "2", "--dist", "loadscope"]
    subprocess.run([sys.executable, "-m", "pytest", *options, tmp_path], cwd=REPOSITORY, check=True)
    return [line.split() for line in record_file.read_text().splitlines()]


def test_a_module_stays_in_one_process_and_those_with_ray_or_vllm_follow_each_other_and_come_first(
    tmp_path: Path,
) -> None:
    names = [*RAY, "tests/e2e/test_a.py", "tests/e2e/test_b.py", "tests/component/test_c.py"]
    ran = run(tmp_path, names)
    first = {worker: test_name for test_name, worker in reversed(ran)}
    where = {name: {worker for test_name, worker in ran if test_name == name} for name in names}
    assert len(ran) == 4 * len(names)
    assert all(len(workers) == 1 for workers in where.values()), where
    assert [name for name in RAY if where[name] != where[RAY[0]]] == []
    assert where[RAY[0]] != where["tests/e2e/test_a.py"] == where["tests/e2e/test_b.py"]
    assert set(first.values()) == {RAY[0], "tests/e2e/test_a.py"}


def test_a_module_that_starts_no_engine_goes_where_there_is_room() -> None:
    assert [scope(f"{module}::test") for module in WITHOUT_ENGINE] == list(WITHOUT_ENGINE)


def test_the_modules_that_are_named_are_there() -> None:
    assert [name for name in (*RAY, E2E, *LONG) if not (REPOSITORY / name).exists()] == []
