"""What stop removes of /dev/shm: exactly what only the ended processes shared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import record, scripts
from flagscale_deploy.remote.deployment.shared_memory import Mapping, Segments, mappings, remember
from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.system import proc
from tests.component.remote.living import Home, Household, birth, messages, runs
from tests.other_user import as_nobody, needs_root

HOLD = """
import mmap, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(file, 4096, getattr(mmap, sys.argv[2]), int(sys.argv[3]))
print("up", flush=True)
time.sleep(600)
"""
SHARED, PRIVATE = "MAP_SHARED", "MAP_PRIVATE"
READ, READ_WRITE = "1", "3"


@pytest.fixture
def segment() -> Iterator[Path]:
    """Provide a file as `shm_open` makes it."""
    descriptor, name = tempfile.mkstemp(prefix="fsd test ", dir="/dev/shm")
    os.write(descriptor, bytes(4096))
    os.close(descriptor)
    yield Path(name)
    Path(name).unlink(missing_ok=True)


def hold(people: Household, path: Path, marker: str = "", how: str = SHARED, access: str = READ_WRITE) -> int:
    """Return the pid of a process that has mapped a file, and keeps it open."""
    return people.start(["python3", "-c", HOLD, str(path), how, access], marker)[0]


def stop(home: Home) -> dict[str, Any]:
    return home.run("stop", run_id=None, grace=5.0, ray_grace=5.0)[-1]


def test_a_segment_of_ended_processes_is_removed_and_counted(people: Household, home: Home, segment: Path) -> None:
    for _ in range(2):
        hold(people, segment, f"{home.deployment}/r1")
    assert stop(home)["segments"] == 1
    assert not segment.exists()


def test_a_segment_of_an_engine_is_removed_before_ray_ends(people: Household, home: Home, segment: Path) -> None:
    home.record({"engine": hold(people, segment, f"{home.deployment}/r1")})
    with home.open("stop", run_id=None, grace=5.0, ray_grace=5.0, wait=0.0) as program:
        assert program.stdout is not None
        first = messages(program.stdout.read())[-1]
        program.wait(30)
    assert (first["event"], first["segments"], segment.exists()) == ("waiting", 1, False)
    assert stop(home)["segments"] == 0


def test_a_segment_noted_while_the_deployment_lived_is_removed_after_a_crash(
    people: Household, home: Home, segment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hold(people, segment, f"{home.deployment}/r1")
    home.record({"engine": engine}, boot_id=birth(engine)["boot_id"])
    monkeypatch.setenv("HOME", str(home.path))
    remember(home.deployment, home.host)
    os.kill(engine, 9)
    people.reap(engine)
    assert (stop(home)["segments"], segment.exists()) == (1, False)


def test_a_new_run_removes_what_a_crashed_one_left(segment: Path) -> None:
    status = segment.stat()
    content: Record = {
        "run_id": "r1",
        "boot_id": record.boot_id(),
        "segments": {str(segment): [status.st_dev, status.st_ino]},
    }
    content = scripts.begin(content, {}, "r1")
    assert segment.exists()
    content = scripts.begin(content, {}, "r2")
    assert not segment.exists()
    assert "segments" not in content


def test_a_segment_noted_before_a_reboot_is_not_looked_for(home: Home, segment: Path) -> None:
    status = segment.stat()
    home.record(boot_id="another", segments={str(segment): [status.st_dev, status.st_ino]})
    assert (stop(home)["segments"], segment.exists()) == (0, True)


def test_a_segment_that_a_foreign_process_has_mapped_or_open_stays(
    people: Household, home: Home, segment: Path
) -> None:
    hold(people, segment, f"{home.deployment}/r1")
    foreign = hold(people, segment)
    assert stop(home)["segments"] == 0
    assert (segment.exists(), runs(foreign)) == (True, True)
    open_only = f"file = open({str(segment)!r})\nprint('up', flush=True)\nimport time\ntime.sleep(600)"
    hold(people, segment, f"{home.deployment}/r1")
    os.kill(foreign, 9)
    people.reap(foreign)
    people.python(open_only)
    assert (stop(home)["segments"], segment.exists()) == (0, True)


def test_weights_kept_in_shared_memory_stay(people: Household, home: Home, segment: Path) -> None:
    hold(people, segment, f"{home.deployment}/r1", access=READ)
    hold(people, segment, f"{home.deployment}/r1", how=PRIVATE)
    assert (stop(home)["segments"], segment.exists()) == (0, True)


def test_a_mapped_file_elsewhere_stays(people: Household, home: Home, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as below:
        files = [tmp_path / "cache", Path(below, "cache")]
        for file in files:
            file.write_bytes(bytes(4096))
            hold(people, file, f"{home.deployment}/r1")
        assert stop(home)["segments"] == 0
        assert all(file.exists() for file in files)


def test_a_later_file_of_the_same_name_stays(people: Household, segment: Path) -> None:
    noted = Segments({})
    pid = hold(people, segment)
    noted.note(process for process in proc.scan() if process.pid == pid)
    os.kill(pid, 9)
    people.reap(pid)
    segment.rename(other := segment.with_name(f"{segment.name} moved"))
    segment.write_bytes(b"")
    try:
        assert (noted.remove(), segment.exists()) == (0, True)
    finally:
        other.unlink()


@needs_root
def test_a_file_of_another_user_stays(people: Household, segment: Path) -> None:
    segment.chmod(0o666)
    noted = Segments({})
    pid = hold(people, segment)
    noted.note(process for process in proc.scan() if process.pid == pid)
    os.kill(pid, 9)
    people.reap(pid)
    assert (as_nobody(noted.remove), segment.exists()) == (0, True)
    assert (noted.remove(), segment.exists()) == (1, False)


def test_the_maps_of_a_process_name_the_very_file(people: Household, segment: Path) -> None:
    status = segment.stat()
    expected = Mapping("rw-s", (status.st_dev, status.st_ino), str(segment))
    assert expected in list(mappings(hold(people, segment)))


def test_a_process_that_is_gone_maps_nothing(people: Household) -> None:
    pid = people.python("print('up', flush=True)")[0]
    people.reap(pid)
    assert list(mappings(pid)) == []
