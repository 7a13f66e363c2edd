from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.remote.living import Home
from tests.component.remote.supervisor.supervised import Supervised


@pytest.fixture
def supervised(home: Home, tmp_path: Path) -> Iterator[Supervised]:
    server_process = Supervised(home, tmp_path)
    yield server_process
    server_process.home.record(
        {"engine": server_process.pid} if server_process.process and not server_process.ended else {}
    )
    for item in server_process.left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(item.pid, signal.SIGKILL)
    if server_process.process is not None:
        server_process.process.wait(10)
