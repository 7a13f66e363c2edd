"""The home directories between which pushes go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.push.homes import Homes


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homes:
    (tmp_path / "operator").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "operator"))
    return Homes(tmp_path)
