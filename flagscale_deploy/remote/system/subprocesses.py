"""Run a command that may hang, print without end, or leave children behind, and return in time whatever it does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import IO, Dict, List, Mapping, NamedTuple, Optional, Sequence

KEPT = 64 << 10
REAPED_WITHIN = 1.0
LOOK_SECONDS = 0.02
"""How soon the end of a command is noticed whose output a child of it still holds."""
PIPE = 64 << 10
"""What a pipe of Linux holds (pipe(7))."""


class EndedBytes(NamedTuple):
    """How a command ended; `code` is None if it did not in time, `stdout` and `stderr` are the last of its output."""

    code: Optional[int]
    stdout: bytes
    stderr: bytes
    cut: bool
    """Whether it printed more than was kept."""


class Ended(NamedTuple):
    """The same as text, of 64 KiB each."""

    code: Optional[int]
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    seconds: float,
    env: Optional[Mapping[str, str]] = None,
    output: Optional[IO[bytes]] = None,
    cwd: Optional[str] = None,
) -> Ended:
    """Run a command in a session of its own, with `env` added to the environment, for `seconds` at most.

    Both outputs go to `output` where it is given. Raises OSError where there is no such command.
    """
    ended = run_bytes(argv, seconds, env=env, output=output, cwd=cwd)
    return Ended(ended.code, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))


def run_bytes(
    argv: Sequence[str],
    seconds: float,
    *,
    env: Optional[Mapping[str, str]] = None,
    output: Optional[IO[bytes]] = None,
    cwd: Optional[str] = None,
    stdin: bytes = b"",
    kept: int = KEPT,
) -> EndedBytes:
    """Run a command as `run` does, with `stdin`; of each output the last `kept` bytes are kept, and no more is held.

    Its process group is killed at the end, in time or not. Output is read until the command ends, and not until the
    pipes do: a child that a user's hook leaves behind may keep those open. A command that SIGKILL doesn't end
    (nvidia-smi on a broken driver) is left to itself.
    """
    with _file(stdin) as given:
        process = subprocess.Popen(
            argv,
            stdin=given if stdin else subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=output or subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    pipes = [_Pipe(pipe, kept) for pipe in (process.stdout, process.stderr) if pipe is not None]
    try:
        code = _wait(process, pipes, time.monotonic() + seconds)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        if code is None:
            _wait(process, pipes, time.monotonic() + REAPED_WITHIN)
        for pipe in pipes:
            pipe.drain()
    finally:
        for pipe in pipes:
            pipe.close()
    stdout, stderr = [bytes(pipe.tail) for pipe in pipes] or (b"", b"")
    return EndedBytes(code, stdout, stderr, any(pipe.cut for pipe in pipes))


class _Pipe:
    """The reading end of a command's output, and the last of what came."""

    def __init__(self, file: IO[bytes], kept: int) -> None:
        self.file, self._kept = file, kept
        self.tail = bytearray()
        self.open, self.cut = True, False
        os.set_blocking(file.fileno(), False)

    def read(self) -> bool:
        """Read what is there, one pipe full at most; return whether there was anything."""
        try:
            data = os.read(self.file.fileno(), PIPE)
        except BlockingIOError:
            return False
        self.open = bool(data)
        self.tail += data
        self.cut = self.cut or len(self.tail) > self._kept
        if len(self.tail) > self._kept:
            del self.tail[: -self._kept]
        return self.open

    def drain(self) -> None:
        """Read what the command left in the pipe."""
        for _ in range(2):
            if not (self.open and self.read()):
                return

    def close(self) -> None:
        self.file.close()


def _file(content: bytes) -> IO[bytes]:
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def _wait(process: subprocess.Popen[bytes], pipes: List[_Pipe], end: float) -> Optional[int]:
    """Read the output until the command ends; return its exit status, None where it does not in time."""
    while process.poll() is None:
        left = end - time.monotonic()
        if left <= 0:
            return None
        opened: Dict[int, _Pipe] = {pipe.file.fileno(): pipe for pipe in pipes if pipe.open}
        if not opened:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(left)
            continue
        ready, _, _ = select.select(list(opened), [], [], min(left, LOOK_SECONDS))
        for descriptor in ready:
            opened[descriptor].read()
    return process.returncode
