"""The keeper process as seen from outside: the one that this process started, or that of somebody else's lab."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

from tests.lab.state import LabState

REPOSITORY = Path(__file__).parents[2]
DOWN_SECONDS = 60.0


class LabError(Exception):
    """The lab could not be brought up, or something of it remains."""


class Keeper(Protocol):
    """Whoever holds a lab up."""

    def end(self) -> None:
        """Have it take the lab down, and wait until it has ended. Raises LabError with what it complains about."""


class OwnKeeper:
    """A keeper started here; it is given the wish and answers with the lab's state."""

    def __init__(self, wish: dict[str, Any]) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the keeper ends)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.keeper", json.dumps(wish)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        with self._process.stdout:
            answer = self._process.stdout.readline()
        if not answer:
            self.end()
            raise LabError("the lab's keeper ended without a word")
        self.state = LabState.loads(answer)

    def end(self) -> None:
        self._process.terminate()
        status = self._process.wait(DOWN_SECONDS)
        if self._complaints.closed:
            return
        with self._complaints:
            self._complaints.seek(0)
            complaint = self._complaints.read()
        if status not in (0, -signal.SIGKILL):
            raise LabError(f"the lab's keeper ended with status {status}:\n{complaint}")


class ForeignKeeper:
    """The keeper of a lab that another process brought up."""

    def __init__(self, state: LabState) -> None:
        self._state = state

    def end(self) -> None:
        if LabState.of(self._state.slot) != self._state:
            return
        try:
            descriptor = os.pidfd_open(self._state.keeper)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            ended, _, _ = select.select([descriptor], [], [], DOWN_SECONDS)
        finally:
            os.close(descriptor)
        if not ended:
            raise LabError(f"{self._state.slot.bridge}: its keeper still runs {DOWN_SECONDS} s after SIGTERM")
