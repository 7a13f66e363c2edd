"""What tests of several runs in a row share."""

from __future__ import annotations

import itertools
import secrets
from pathlib import Path

import pytest


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the operator's working directory, in which ids of runs sort by time also within a second."""
    numbers = itertools.count(1)
    monkeypatch.setattr(secrets, "token_hex", lambda size: f"{next(numbers):0{2 * size}x}")
    monkeypatch.chdir(tmp_path)
    return tmp_path
