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
    assert (oom.since(deployed), oom.said(deployed)) == (0, "")
    counted(file, 5)
    assert oom.said(deployed) == "the kernel has ended a process of this host for want of memory since the run began"
    counted(file, 7)
    assert "3 processes of this host" in oom.said(deployed)
    counted(file, 0)
    assert oom.said(deployed) == ""


def test_what_is_not_known_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert oom.said({}) == ""
    assert oom.said({"oom_kills": None}) == ""
    monkeypatch.setattr(oom, "COUNTERS", str(tmp_path / "none"))
    assert oom.kills() is None
    assert oom.said({"oom_kills": 1}) == ""
