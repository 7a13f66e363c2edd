"""What the kernel counts of processes that it ended for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.remote.messages.record import Record
from flagscale_deploy.remote.system import oom


def counted(path: Path, number: int) -> None:
    path.write_text(f"nr_free_pages 7\noom_kill {number}\npgfault 9\n")


def test_what_was_ended_since_the_run_began_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vmstat"
    monkeypatch.setattr(oom, "COUNTERS", str(file))
    counted(file, 4)
    deployed: Record = {"oom_kills": oom.kills()}
    assert (oom.since(deployed), oom.describe(deployed)) == (0, "")
    counted(file, 5)
    assert (
        oom.describe(deployed) == "the kernel has killed a process of this host for lack of memory since the run began"
    )
    counted(file, 7)
    assert "3 processes of this host" in oom.describe(deployed)
    counted(file, 0)
    assert oom.describe(deployed) == ""


def test_what_is_not_known_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert oom.describe({}) == ""
    assert oom.describe({"oom_kills": None}) == ""
    monkeypatch.setattr(oom, "COUNTERS", str(tmp_path / "none"))
    assert oom.kills() is None
    assert oom.describe({"oom_kills": 1}) == ""
