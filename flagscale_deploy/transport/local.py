"""Run commands on the operator's own machine, without SSH (`connection: local`)."""

from __future__ import annotations

import os
import select
import selectors
import signal
import subprocess
from typing import cast

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.file_modes import users_umask
from flagscale_deploy.transport.base import Source

CHUNK = 1 << 16
SEND_SECONDS = 120.0
PROGRAM_GRACE_SECONDS = 5.0
"""How long a program may take to end once its standard input has: it puts things in order."""
COMMAND_GRACE_SECONDS = 0.2
"""A command whose standard input ended long ago has nothing to end for."""


class LocalRunning:
    """A child process, in a session of its own: Ctrl-C at the operator's terminal is not for it."""

    def __init__(self, host: str, command: str) -> None:
        self._host = host
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            umask=users_umask(),
        )
        self._selector = selectors.DefaultSelector()
        for stream, source in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert stream is not None
            self._selector.register(stream, selectors.EVENT_READ, source)

    def send(self, data: bytes) -> None:
        """Write to its standard input. Raises RemoteError where it reads nothing for two minutes."""
        assert self._process.stdin is not None
        view = memoryview(data)
        descriptor = self._process.stdin.fileno()
        os.set_blocking(descriptor, False)
        writable = select.poll()
        writable.register(descriptor, select.POLLOUT)
        try:
            while view:
                if not writable.poll(SEND_SECONDS * 1000):
                    raise RemoteError(self._host, f"the command has read none of its input for {SEND_SECONDS:g} s")
                view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            pass  # it ended early: its exit status and stderr say why

    def close_stdin(self) -> None:
        """End its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        """Return the next output; see `Running`."""
        if not self._selector.get_map():
            return None
        for key, _ in self._selector.select(timeout):
            data = os.read(key.fd, CHUNK)
            if data:
                return cast(Source, key.data), data
            self._selector.unregister(key.fileobj)
            return self.read(0)
        return "stdout", b""

    def exit_code(self, timeout: float) -> int | None:
        """Wait for its exit status and return it, None if it is late."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it: with its standard input, or by SIGKILL."""
        assert self._process.stdin is not None
        grace = COMMAND_GRACE_SECONDS if self._process.stdin.closed else PROGRAM_GRACE_SECONDS
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class LocalConnection:
    """The host is this machine."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def open(self) -> None:
        """Open nothing: there is nothing to open."""

    def start(self, command: str) -> LocalRunning:
        """Start a command."""
        return LocalRunning(self.host.name, command)

    def close(self) -> None:
        """Close nothing: there is nothing to close."""
