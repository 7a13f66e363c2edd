"""The environments as pytest fixtures: built on first use, found afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments import build


@pytest.fixture(scope="session")
def node_env() -> Path:
    """Provide a virtual environment with real vLLM (CPU) and Ray; for a lab, mount `build.mounts(node_env)`."""
    return build.node_environment()


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Provide a directory with a tiny Qwen2 that vLLM serves on CPU."""
    return build.tiny_model()
