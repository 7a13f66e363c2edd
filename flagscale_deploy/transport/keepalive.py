"""Detect an SSH server that acknowledges packets and does no more.

TCP notices a cable that was cut. It does not notice an sshd that hangs, on a full process table or a dead disk, say:
the kernel behind it goes on acknowledging. Paramiko's keepalives ask for no answer, so we ask for one (RFC 4254,
section 4; OpenSSH's ServerAliveInterval does the same).
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
import time
from collections.abc import Callable

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

QUIET_SECONDS = 10.0
"""How long nothing may come before we ask."""
SILENCE_SECONDS = 30.0
"""How long the answer may take, once all that we have sent has arrived."""


class Keepalive:
    """The keepalive of one connection, called by whoever waits for output; no thread of its own is needed."""

    def __init__(self, transport: paramiko.Transport, now: Callable[[], float] = time.monotonic) -> None:
        self._transport, self._now = transport, now
        self._lock = threading.Lock()
        self._heard = now()
        self._asked: float | None = None
        self._answered = threading.Event()

    def heard(self) -> None:
        """Note that something has come."""
        with self._lock:
            self._heard, self._asked = self._now(), None

    def silent_for(self) -> float:
        """Return the seconds that a reply is overdue, 0 while there is hope; ask for one, if it is time to.

        It is called where nothing has come.
        """
        with self._lock:
            now = self._now()
            if self._asked is None:
                if now - self._heard >= QUIET_SECONDS:
                    self._asked = now
                    self._ask()
            elif self._answered.is_set():
                self._heard, self._asked = now, None
            elif unsent(self._transport):
                self._asked = now  # it can't have answered what has not arrived; TCP notices if nothing does
            elif now - self._asked >= SILENCE_SECONDS:
                return now - self._heard
            return 0.0

    def answers(self, timeout: float) -> bool:
        """Return whether the server answers within so many seconds."""
        with self._lock:
            if self._asked is None or self._answered.is_set():
                self._asked = self._now()
                self._ask()
            answered = self._answered
        return answered.wait(timeout) and self._transport.is_active()

    def _ask(self) -> None:
        self._answered = threading.Event()
        self._transport.completion_event = self._answered  # set by any answer, a refusal as well
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        try:
            self._transport._send_user_message(message)  # type: ignore[attr-defined]  # global_request would wait
        except (OSError, EOFError, paramiko.SSHException):
            return  # the connection is lost: whoever waits is told


def unsent(transport: paramiko.Transport) -> int:
    """Return the bytes on their way to the other side's kernel (SIOCOUTQ, tcp(7)); 0 through a jump host."""
    if not isinstance(transport.sock, socket.socket):
        return 0
    count = array.array("i", [0])
    try:
        fcntl.ioctl(transport.sock.fileno(), termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return count[0]
