"""Tests that become another user."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user or makes a pid namespace: needs root")


def as_nobody(act: Callable[[], object], uid: int = 65534) -> Any:
    """Return what `act` returns (as JSON) in a child that is the user nobody, or another."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(writing, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    return json.loads(content)
