"""Run a ProxyCommand as ssh does: in the user's shell, its standard input and output in place of a TCP connection."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
from contextlib import suppress

from flagscale_deploy.support.file_modes import users_umask

KEPT = 64 << 10
"""Bytes of its errors that are kept."""
END_SECONDS = 1.0
"""How long it may take to end once its input has ended."""


class ProxyCommand:
    """A running ProxyCommand; `socket` is our end."""

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        self._command = command
        shell = os.environ.get("SHELL") or "/bin/sh"
        with theirs:
            end = theirs.fileno()
            self._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=end,
                stdout=end,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=users_umask(),
            )
        self._errors = bytearray()
        self._reading = threading.Thread(target=self._read_errors, daemon=True)
        self._reading.start()

    def failure(self) -> str:
        """Return how it ended, with the last line of its errors; "" while it runs."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(END_SECONDS / 2)
            self._reading.join(END_SECONDS / 2)
            lines = self._errors.decode(errors="replace").strip().splitlines()
            status = f"exit status {code}" if code >= 0 else f"signal {-code}"
            return f"its ProxyCommand ({self._name()}) ended with {status}" + (f": {lines[-1]}" if lines else "")
        return ""

    def close(self) -> None:
        """End it, with what it started. Of one that has ended, the number may be another's by now."""
        self.socket.close()
        for number in (signal.SIGHUP, signal.SIGKILL):
            if self._process.returncode is not None:
                break
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)

    def _read_errors(self) -> None:
        """Keep the end of what it writes to its standard error, until all that have that open have ended."""
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            while data := os.read(errors.fileno(), KEPT):
                self._errors = (self._errors + data)[-KEPT:]

    def _name(self) -> str:
        """Return the program's name alone: its arguments may hold a password."""
        with suppress(ValueError, IndexError):
            return os.path.basename(shlex.split(self._command)[0])
        return "?"
