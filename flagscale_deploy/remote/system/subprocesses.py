"""Run a command that may hang, print without end, or leave children behind, and return in time whatever it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, Mapping, NamedTuple, Optional, Sequence

KEPT = 64 << 10
REAPED_WITHIN = 1.0


class Ended(NamedTuple):
    """How a command ended; `code` is None if it did not in time, `stdout` and `stderr` are their last 64 KiB."""

    code: Optional[int]
    stdout: str
    stderr: str


def run(
    argv: Sequence[str], seconds: float, env: Optional[Mapping[str, str]] = None, output: Optional[IO[bytes]] = None
) -> Ended:
    """Run a command in a session of its own, with `env` added to the environment, for `seconds` at most.

    Its process group is killed at the end, in time or not. Both outputs go to `output` where it is given. They are
    files and not pipes: a child that a user's hook leaves behind would keep a pipe open, and the reader waiting. A
    command that SIGKILL doesn't end (nvidia-smi on a broken driver) is left to itself. Raises OSError if there is none.
    """
    with _file("stdout") as stdout, _file("stderr") as stderr:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output or stdout,
            stderr=output or stderr,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        code = _wait(process, seconds)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        if code is None:
            _wait(process, REAPED_WITHIN)
        return Ended(code, _last(stdout), _last(stderr))


def _file(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> Optional[int]:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _last(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT))
    return file.read().decode(errors="replace")
