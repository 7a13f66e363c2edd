"""A home directory for tests of SSH."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.transport.ssh_config import this_resolver


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set a home directory of the test's own: neither the user's ~/.ssh nor their agent plays a part."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    this_resolver.cache_clear()
    yield tmp_path
    this_resolver.cache_clear()
