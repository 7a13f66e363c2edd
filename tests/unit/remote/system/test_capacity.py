"""Memory: what the machine has, and what its control groups leave of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flagscale_deploy.remote.system import capacity
from flagscale_deploy.remote.system.capacity import Limit

MEMINFO = """\
MemTotal:       2113534576 kB
MemFree:        1874223360 kB
MemAvailable:   2051110912 kB
HugePages_Total:       0
"""
KIB, GIB = 1024, 1 << 30


def test_without_a_limit_it_is_the_machines() -> None:
    assert capacity.memory(MEMINFO, []) == {"memory_total": 2113534576 * KIB, "memory_available": 2051110912 * KIB}


def test_the_tightest_control_group_counts() -> None:
    groups = [Limit(64 * GIB, 60 * GIB), Limit(32 * GIB, 1 * GIB)]
    assert capacity.memory(MEMINFO, groups) == {"memory_total": 32 * GIB, "memory_available": 4 * GIB}


def test_a_group_above_its_limit_leaves_nothing() -> None:
    assert capacity.memory(MEMINFO, [Limit(GIB, 2 * GIB)])["memory_available"] == 0


def group(path: Path, **files: object) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(f"{content}\n")


def test_limits_of_version_2_hold_from_every_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(capacity, "V2", capacity.V2._replace(base=str(tmp_path)))
    group(
        tmp_path / "user.slice",
        memory__max=8 * GIB,
        memory__current=3 * GIB,
        memory__stat=f"anon 1\ninactive_file {GIB}",
    )
    group(tmp_path / "user.slice" / "session-4.scope", memory__max="max", memory__current=5)
    assert capacity.limits("0::/user.slice/session-4.scope\n") == [Limit(8 * GIB, 2 * GIB)]


def test_limits_of_version_1_are_read_and_no_limit_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(capacity, "V1", capacity.V1._replace(base=str(tmp_path)))
    unlimited = 9223372036854771712
    group(tmp_path, memory__limit_in_bytes=unlimited, memory__usage_in_bytes=GIB, memory__stat="total_inactive_file 0")
    group(tmp_path / "job", memory__limit_in_bytes=GIB, memory__usage_in_bytes=10, memory__stat="total_inactive_file 4")
    assert capacity.limits("5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n") == [Limit(GIB, 6)]


def test_this_machine_has_something_of_everything() -> None:
    capacities = capacity.observe(os.path.expanduser("~"))
    assert capacities["memory_total"] >= capacities["memory_available"] > 0
    assert capacities["cpus"] > 0
    assert {"disk_free", "tmp_free", "shm_total", "shm_free"} < set(capacities)
