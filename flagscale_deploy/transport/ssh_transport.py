"""The transport of an SSH connection: its ciphers, and how soon its end is noticed."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import paramiko

from flagscale_deploy.support.platform import limit_silence

KEEPALIVE_SECONDS = 5
SILENCE_MILLISECONDS = 30_000
"""A connection whose packets nobody acknowledges for so long is lost (TCP_USER_TIMEOUT; the default is 15 minutes)."""
IDLE_SECONDS = 2.5
"""How often an idle connection's thread wakes up to look after it: Paramiko's 0.1 s cost 1000 hosts a whole core."""


class Transport(paramiko.Transport):
    """A transport that prefers AES-GCM, which Paramiko offers last, and has no log.

    With other ciphers Paramiko compares each packet's MAC in Python, byte by byte: 0.5 ms of the CPU that a login takes
    and a tenth of a megabyte's. To log what an sshd tells of a key's options takes 0.9 ms by itself.
    """

    def __init__(self, sock: Any, **settings: Any) -> None:
        super().__init__(sock, **settings)
        options = self.get_security_options()
        options.ciphers = tuple(sorted(options.ciphers, key=lambda cipher: "-gcm@" not in cipher))

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:
        """Log nothing."""

    def _parse_debug(self, _message: paramiko.Message) -> None:
        """Ignore it."""


def notice_silence(transport: paramiko.Transport) -> None:
    """Make a lost connection be noticed: by keepalives, and by packets that nobody acknowledges."""
    transport.set_keepalive(KEEPALIVE_SECONDS)
    if isinstance(transport.sock, socket.socket):
        transport.sock.settimeout(IDLE_SECONDS)
        limit_silence(transport.sock, SILENCE_MILLISECONDS)


def wake(transport: paramiko.Transport | None) -> None:
    """Make a connection's thread see at once that it is closed, and not at its next look."""
    if transport is not None and isinstance(transport.sock, socket.socket):
        with suppress(OSError):
            transport.sock.shutdown(socket.SHUT_RDWR)
